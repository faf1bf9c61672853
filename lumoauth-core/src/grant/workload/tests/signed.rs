//! Signed requests of AWS.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::grant::AWS_STS_REQUEST;

const ROLE: &str = "arn:aws:iam::123456789012:role/bot";
const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/bot/i-0abc";
const STS: &str = "https://sts.eu-west-1.amazonaws.com/";
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const SIGNED: &str = "content-type;host;x-amz-date;x-amz-security-token;x-lumoauth-server-id";

fn trust() -> Value {
    json!({"provider": "aws", "roleArn": ROLE})
}

/// The request's date. The memory of what was used before begins with the store, and covers what was signed since.
fn date(bench: &Bench) -> String {
    amz(bench.now() + 60)
}

fn amz(seconds: u64) -> String {
    let text = Timestamp::from_unix_seconds(seconds).to_string();
    let text: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    format!("{}Z", &text[..15])
}

fn authorization(date: &str, region: &str, signed: &str, signature: char) -> String {
    let (day, signature) = (&date[..8], signature.to_string().repeat(64));
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/{day}/{region}/sts/aws4_request, SignedHeaders={signed}, Signature={signature}"
    )
}

/// A request as SDKs sign it; the signature is of this digit.
fn signed(bench: &Bench, signature: char) -> Value {
    let date = date(bench);
    json!({
        "method": "POST", "url": STS, "body": BODY,
        "headers": {
            "Host": "sts.eu-west-1.amazonaws.com",
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "Content-Length": "43",
            "X-Amz-Date": date,
            "X-Amz-Security-Token": "canary-session-token",
            "X-Lumoauth-Server-Id": bench.issuer(),
            "Authorization": authorization(&date, "eu-west-1", SIGNED, signature),
        },
    })
}

fn encode(request: &Value) -> String {
    URL_SAFE_NO_PAD.encode(request.to_string())
}

fn answer(arn: &str, account: &str) -> Vec<u8> {
    let result = json!({"Arn": arn, "Account": account, "UserId": "AROAEXAMPLE:i-0abc"});
    let response = json!({"GetCallerIdentityResult": result, "ResponseMetadata": {"RequestId": "r"}});
    json!({ "GetCallerIdentityResponse": response }).to_string().into_bytes()
}

impl Bench {
    fn aws_answers(&self, body: Vec<u8>) {
        self.world.answers.lock().unwrap().insert(STS.to_owned(), Ok(body));
    }

    async fn sign_in(&self, agent: &Agent, subject: &str) -> Outcome {
        self.request(&[
            ("grant_type", EXCHANGE),
            ("subject_token_type", AWS_STS_REQUEST),
            ("subject_token", subject),
            ("client_id", agent.client_id.as_str()),
        ])
        .await
    }
}

#[tokio::test]
async fn a_request_that_the_role_signed_becomes_an_agent_token() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", trust()).await;
    bench.aws_answers(answer(SESSION, "123456789012"));
    let response = bench.sign_in(&agent, &encode(&signed(&bench, 'a'))).await.unwrap();
    let claims = claims_of(&response);
    assert_eq!(claims["workload_identity"], format!("aws:{ROLE}"));
    assert_eq!((&claims["amr"], &claims["agent_id"]), (&json!(["workload"]), &json!(agent.id.to_string())));
    assert!(response.issued_token_type.is_some());

    let asked = bench.world.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    let sent = &asked[0];
    assert_eq!((sent.url.as_str(), sent.form.as_ref().unwrap().expose()), (STS, BODY));
    let mut names: Vec<_> = sent.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["authorization", "content-type", "x-amz-date", "x-amz-security-token", "x-lumoauth-server-id"]
    );
    assert!(!format!("{sent:?}").contains("canary"));
    assert!(sent.max_bytes <= 64 * 1024);
    assert!(!serde_json::to_string(&bench.logged().await).unwrap().contains("canary"));
}

#[tokio::test]
async fn a_request_is_used_once() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", trust()).await;
    bench.aws_answers(answer(SESSION, "123456789012"));
    let request = signed(&bench, 'a');
    assert!(bench.sign_in(&agent, &encode(&request)).await.is_ok());
    Bench::refused(bench.sign_in(&agent, &encode(&request)).await);
    // Also with another spelling around the same signature.
    let mut respelled = request.clone();
    respelled["headers"].as_object_mut().unwrap().remove("Content-Length");
    Bench::refused(bench.sign_in(&agent, &encode(&respelled)).await);
    // And if AWS did not answer the first time.
    bench.world.answers.lock().unwrap().clear();
    let second = encode(&signed(&bench, 'b'));
    Bench::refused(bench.sign_in(&agent, &second).await);
    bench.aws_answers(answer(SESSION, "123456789012"));
    Bench::refused(bench.sign_in(&agent, &second).await);
    assert_eq!(bench.asked(), 2);
    // Of many at once, one.
    let request = encode(&signed(&bench, 'c'));
    let outcomes = futures_util::future::join_all((0..16).map(|_| bench.sign_in(&agent, &request))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(bench.asked(), 3);
}

#[tokio::test]
async fn a_request_of_an_agent_that_is_elsewhere_is_neither_sent_nor_used_up() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", trust()).await;
    bench.aws_answers(answer(SESSION, "123456789012"));
    let request = encode(&signed(&bench, 'a'));
    bench.change(&agent, |agent| agent.allowed_ips = vec!["192.0.2.0/24".parse().unwrap()]).await;
    Bench::refused(bench.sign_in(&agent, &request).await);
    assert_eq!(bench.asked(), 0);
    bench.change(&agent, |agent| agent.allowed_ips.clear()).await;
    assert!(bench.sign_in(&agent, &request).await.is_ok());
}

#[tokio::test]
async fn whatever_is_not_exactly_that_request_is_never_sent() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", trust()).await;
    bench.aws_answers(answer(SESSION, "123456789012"));
    let good = signed(&bench, 'a');
    let header = |name: &str, value: &str| {
        let mut request = good.clone();
        request["headers"][name] = json!(value);
        request
    };
    let no_header = |name: &str| {
        let mut request = good.clone();
        request["headers"].as_object_mut().unwrap().remove(name).unwrap();
        request
    };
    let at = |host: &str| with(header("Host", host), "url", format!("https://{host}/"));
    let date = date(&bench);
    let signing =
        |region: &str, names: &str| header("Authorization", &authorization(&date, region, names, 'a'));
    let dated = |seconds: u64, day: u64| {
        let mut request = header("X-Amz-Date", &amz(seconds));
        request["headers"]["Authorization"] = json!(authorization(&amz(day), "eu-west-1", SIGNED, 'a'));
        request
    };
    let now = bench.now();
    let mut flawed = vec![
        with(good.clone(), "method", "GET"),
        with(good.clone(), "method", "post"),
        with(good.clone(), "extra", "x"),
        without(good.clone(), "body"),
        with(good.clone(), "headers", json!([])),
        // Bodies that ask for something else, or for two things.
        with(good.clone(), "body", "Action=AssumeRole&Version=2011-06-15"),
        with(good.clone(), "body", "Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15"),
        with(good.clone(), "body", "action=GetCallerIdentity&Version=2011-06-15"),
        with(good.clone(), "body", "Action=GetCallerIdentity&Version=2011-06-15&RoleArn=x"),
        with(good.clone(), "body", "Action=GetCallerIdentity&Version=2011-06-15&"),
        with(good.clone(), "body", "Action=GetCallerIdentit%79&Version=2011-06-15"),
        with(good.clone(), "body", "Action=GetCallerIdentity"),
        with(good.clone(), "body", ""),
        // Headers.
        header("Accept", "application/xml"),
        header("X-Amz-Expires", "604800"),
        header("X-Amz-Target", "x"),
        header("Cookie", "x"),
        header("host", "sts.eu-west-1.amazonaws.com"),
        header("Host", "sts.amazonaws.com"),
        header("X-Lumoauth-Server-Id", "https://auth.example/orgs/globex/api/v1"),
        header("X-Lumoauth-Server-Id", &format!("{}/", bench.issuer())),
        header("X-Amz-Security-Token", "a\r\nX-Evil: 1"),
        header("X-Amz-Security-Token", "a  b"),
        header("X-Amz-Security-Token", " a"),
        header("X-Amz-Security-Token", ""),
        header("Content-Type", "application/json"),
        header("Content-Length", "44"),
        no_header("Host"),
        no_header("X-Lumoauth-Server-Id"),
        no_header("X-Amz-Date"),
        no_header("Authorization"),
        // What is signed.
        no_header("X-Amz-Security-Token"),
        signing("eu-west-1", "content-type;host;x-amz-date;x-amz-security-token"),
        signing("eu-west-1", "host;x-amz-security-token;x-lumoauth-server-id"),
        signing("eu-west-1", "content-type;x-amz-date;x-amz-security-token;x-lumoauth-server-id"),
        signing("eu-west-1", "host;x-amz-date;x-lumoauth-server-id"),
        signing("eu-west-1", "Host;x-amz-date;x-amz-security-token;x-lumoauth-server-id"),
        signing("eu-west-1", "x-lumoauth-server-id;host;x-amz-date;x-amz-security-token"),
        signing("eu-west-1", ""),
        signing("us-east-1", SIGNED),
        header("Authorization", "Bearer x"),
        header("Authorization", &authorization(&date, "eu-west-1", SIGNED, 'A')),
        header("Authorization", &authorization(&date, "eu-west-1", SIGNED, 'a').replace("/sts/", "/s3/")),
        header(
            "Authorization",
            &format!("{}, Signature={}", authorization(&date, "eu-west-1", SIGNED, 'a'), "b".repeat(64)),
        ),
        // When.
        dated(now - 900, now - 900),
        dated(now + 61, now + 61),
        dated(now, now - 86_400),
        header("X-Amz-Date", "2026-09-21T14:13:20Z"),
        header("X-Amz-Date", "20261399T000000Z"),
    ];
    for host in [
        "sts.amazonaws.com.evil",
        "evil.example",
        "127.0.0.1",
        "169.254.169.254",
        "sts.eu-west-1.amazonaws.com:443",
        "sts.eu-west-1.amazonaws.com:8443",
        "sts.eu-west-1.amazonaws.com.",
        "STS.eu-west-1.amazonaws.com",
        "sts.evil.amazonaws.com",
        "u@sts.eu-west-1.amazonaws.com",
        "sts.eu-west-1.amazonaws.com/x",
        "sts.eu-west-1.amazonaws.com?x",
        "sts.\u{435}u-west-1.amazonaws.com",
        "iam.amazonaws.com",
        "sts.cn-north-1.amazonaws.com.cn",
    ] {
        flawed.push(at(host));
    }
    for url in [
        "http://sts.eu-west-1.amazonaws.com/",
        "https://sts.eu-west-1.amazonaws.com",
        "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity",
        "https://sts.eu-west-1.amazonaws.com/#",
        "https://sts.eu-west-1.amazonaws.com//",
        "https:///sts.eu-west-1.amazonaws.com/",
        "HTTPS://sts.eu-west-1.amazonaws.com/",
    ] {
        flawed.push(with(good.clone(), "url", url));
    }
    for request in &flawed {
        let outcome = bench.sign_in(&agent, &encode(request)).await;
        assert!(outcome.is_err(), "{request}");
        Bench::refused(outcome);
    }
    for text in ["x", "e30", "", &encode(&json!([])), &format!("{}=", encode(&good)), &"A".repeat(16_385)] {
        let outcome = bench.sign_in(&agent, text).await;
        assert!(outcome.is_err());
    }
    // Two members of one name.
    let twice = good.to_string().replace("\"method\"", "\"method\":\"POST\",\"method\"");
    Bench::refused(bench.sign_in(&agent, &URL_SAFE_NO_PAD.encode(twice)).await);
    assert_eq!(bench.asked(), 0);
    assert!(bench.sign_in(&agent, &encode(&good)).await.is_ok());
}

#[tokio::test]
async fn only_an_agent_that_trusts_a_role_makes_us_ask() {
    let bench = Bench::new().await;
    bench.aws_answers(answer(SESSION, "123456789012"));
    let token = encode(&signed(&bench, 'a'));
    let fields = [
        ("grant_type", EXCHANGE),
        ("subject_token_type", AWS_STS_REQUEST),
        ("subject_token", token.as_str()),
    ];
    let unnamed = bench.request(&fields).await.unwrap_err().to_wire();
    assert_eq!((unnamed.status.as_u16(), unnamed.error), (400, "invalid_request"));
    for name in [("client_id", "nobody"), ("client_id", "*"), ("agent_id", "agt_none")] {
        Bench::refused(bench.request(&[fields[0], fields[1], fields[2], name]).await);
    }
    let other = json!({"provider": "oidc", "issuer": "https://idp.example", "subject": ROLE});
    let by_token = with(trust(), "issuer", "https://x.tokens.sts.global.api.aws");
    let elsewhere = with(trust(), "region", "us-east-1");
    let chinese = with(trust(), "roleArn", "arn:aws-cn:iam::123456789012:role/bot");
    for (at, trust) in [other, by_token, elsewhere, chinese].into_iter().enumerate() {
        let agent = bench.agent(&format!("other-{at}"), trust).await;
        Bench::refused(bench.sign_in(&agent, &token).await);
    }
    let agent = bench.agent("bot", with(trust(), "region", "eu-west-1")).await;
    let wrong =
        bench.request(&[fields[0], fields[1], fields[2], ("subject_issuer", "gcp"), ("agent_id", "x")]).await;
    assert_eq!(wrong.unwrap_err().to_wire().error, "invalid_request");
    bench.change(&agent, |agent| agent.status = crate::agent::AgentStatus::Suspended).await;
    Bench::refused(bench.sign_in(&agent, &token).await);
    assert_eq!(bench.asked(), 0);
    bench.change(&agent, |agent| agent.status = crate::agent::AgentStatus::Active).await;
    let named =
        [fields[0], fields[1], fields[2], ("subject_issuer", "aws"), ("agent_id", &agent.id.to_string())];
    assert!(bench.request(&named).await.is_ok());
}

#[tokio::test]
async fn the_answer_counts_and_nothing_that_looks_like_it() {
    let bench = Bench::new().await;
    let agent = bench.agent("bot", trust()).await;
    let mut digits = "0123456789abcdef".chars().cycle();
    let good = answer(SESSION, "123456789012");
    let text = String::from_utf8(good.clone()).unwrap();
    let mut long = good.clone();
    long.resize(20_000, b' ');
    let answers = [
        answer("arn:aws:sts::999999999999:assumed-role/bot/i-0abc", "999999999999"),
        answer("arn:aws:sts::999999999999:assumed-role/bot/i-0abc", "123456789012"),
        answer(SESSION, "999999999999"),
        answer("arn:aws-cn:sts::123456789012:assumed-role/bot/x", "123456789012"),
        answer("arn:aws:sts::123456789012:assumed-role/x/bot", "123456789012"),
        answer("arn:aws:sts::123456789012:assumed-role/bot/x/y", "123456789012"),
        answer("arn:aws:iam::123456789012:user/bot", "123456789012"),
        answer("arn:aws:iam::123456789012:root", "123456789012"),
        answer("", ""),
        text.replace("\"Account\"", "\"Account\":\"1\",\"Account\"").into_bytes(),
        text.replace("GetCallerIdentityResult", "AssumeRoleResult").into_bytes(),
        text.replace("\"UserId\"", "\"Evil\":1,\"UserId\"").into_bytes(),
        format!("<xml>{text}</xml>").into_bytes(),
        format!("[{text}]").into_bytes(),
        Vec::new(),
        long,
    ];
    for body in answers {
        let request = encode(&signed(&bench, digits.next().unwrap()));
        bench.aws_answers(body.clone());
        let outcome = bench.sign_in(&agent, &request).await;
        assert!(outcome.is_err(), "{}", String::from_utf8_lossy(&body));
        Bench::refused(outcome);
        bench.clock.advance(minutes(16));
    }
    for status in [302, 403, 500] {
        bench.world.answers.lock().unwrap().insert(STS.to_owned(), Err(status));
        Bench::refused(bench.sign_in(&agent, &encode(&signed(&bench, digits.next().unwrap()))).await);
        bench.clock.advance(minutes(16));
    }
    bench.aws_answers(good);
    assert!(bench.sign_in(&agent, &encode(&signed(&bench, 'e'))).await.is_ok());
}
