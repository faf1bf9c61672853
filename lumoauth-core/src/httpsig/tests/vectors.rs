//! Vectors: the contract's, and those of RFC 9421 appendix B.

use super::support::{NONCE, Request};
use crate::httpsig::Profile;

#[test]
fn the_contracts_vector_is_what_we_sign_and_verifies_as_it_was_sent() {
    let ours = Request::new().signed(Profile::LUMO_SDK);
    assert_eq!(ours.get("content-digest"), "sha-256=:maoKTEBGVoe/uXlHmt4EeWj7K7xo71Ag/qIPObi3vPw=:");
    let list =
        r#"("@method" "@authority" "@path" "signature-key" "content-digest" "content-type" "authorization")"#;
    let input = format!("sig1={list};created=1750000000;nonce=\"{NONCE}\"");
    assert_eq!(ours.get("signature-input"), input);
    // The signature of the contract, in standard base64.
    let sent = "sr5ZGEA2-LkKN4RvFrpYxhaGPB-tf1STvf1W0bl_UAFt1Rjn_wKKCouOHsFamkDAf85UpwF_HOJXLs07-bynCw";
    let standard = sent.replace('-', "+").replace('_', "/");
    assert_eq!(ours.get("signature"), format!("sig1=:{standard}==:"));

    for value in [sent.to_owned(), format!("{sent}=="), standard.clone(), format!("{standard}==")] {
        let request = ours.clone().with("signature", &format!("sig1=:{value}:"));
        let verified = request.check().unwrap();
        assert_eq!(verified.signature().profile(), Profile::LUMO_SDK);
        assert_eq!(verified.signature().nonce(), NONCE);
        assert!(verified.signature().covers_query());
    }
}
