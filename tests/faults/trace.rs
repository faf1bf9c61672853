//! Reading what `strace -f -y -T -ttt` wrote.

use std::collections::HashMap;

/// One system call, from its start to its end.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// First argument when it is a descriptor.
    pub(crate) fd: u32,
    /// What `-y` says the descriptor is.
    pub(crate) what: String,
    /// The rest of the line.
    pub(crate) rest: String,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

/// All completed calls, by start.
pub(crate) fn parse(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    // A call that another thread interrupts in the listing is written in two parts.
    let mut open: HashMap<(u32, String), (f64, String)> = HashMap::new();
    for line in trace.lines() {
        let Some((pid, line)) = line.trim_start().split_once(' ') else { continue };
        let (Ok(pid), Some((stamp, body))) = (pid.parse::<u32>(), line.trim_start().split_once(' ')) else {
            continue;
        };
        let Ok(stamp) = stamp.parse::<f64>() else { continue };
        if let Some(resumed) = body.strip_prefix("<... ") {
            let Some((name, rest)) = resumed.split_once(" resumed>") else { continue };
            if let Some((start, beginning)) = open.remove(&(pid, name.to_owned())) {
                calls.extend(call(&format!("{beginning}{rest}"), start, Some(stamp)));
            }
        } else if let Some(beginning) = body.strip_suffix(" <unfinished ...>") {
            let name = beginning.split('(').next().unwrap_or_default();
            open.insert((pid, name.to_owned()), (stamp, beginning.to_owned()));
        } else {
            calls.extend(call(body, stamp, None));
        }
    }
    calls.sort_by(|a, b| a.start.total_cmp(&b.start));
    calls
}

fn call(body: &str, start: f64, resumed: Option<f64>) -> Option<Call> {
    let (name, arguments) = body.split_once('(')?;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let digits = arguments.bytes().take_while(u8::is_ascii_digit).count();
    let fd = arguments[..digits].parse().unwrap_or(u32::MAX);
    let rest = &arguments[digits..];
    let what = rest.strip_prefix('<').and_then(|it| it.split_once('>')).map_or("", |(what, _)| what);
    // `= 4096 <0.000123>` at the end of the line.
    let spent = body.rsplit_once('<').and_then(|(_, it)| it.trim_end_matches('>').parse::<f64>().ok());
    let end = match (spent, resumed) {
        (Some(spent), _) => start + spent,
        (None, Some(resumed)) => resumed,
        (None, None) => start,
    };
    Some(Call { name: name.to_owned(), fd, what: what.to_owned(), rest: rest.to_owned(), start, end })
}

impl Call {
    /// The bytes that the call moved begin like this.
    pub(crate) fn carries(&self, start: &str) -> bool {
        // After the descriptor: `, "POST /orgs` or, for vectors and messages, `[{iov_base="HTTP/1.1`.
        self.rest.find('"').is_some_and(|quote| self.rest[quote + 1..].starts_with(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_interrupted_lines_are_read() {
        let trace = "\
10 100.000000 pwrite64(9</d/data>, \"abc\"..., 4096, 0) = 4096 <0.000100>
10 100.000200 fdatasync(9</d/data> <unfinished ...>
11 100.000300 recvfrom(12<TCP:[1->2]>, \"POST /orgs/a HTTP/1.1\\r\\n\"..., 8192, 0, NULL, NULL) = 300 <0.000010>
10 100.001200 <... fdatasync resumed>) = 0 <0.001000>
11 100.002000 writev(12<TCP:[1->2]>, [{iov_base=\"HTTP/1.1 201 Created\", iov_len=20}], 1) = 20 <0.000020>
";
        let calls = parse(trace);
        let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["pwrite64", "fdatasync", "recvfrom", "writev"]);
        assert_eq!((calls[1].fd, calls[1].what.as_str()), (9, "/d/data"));
        assert!((calls[1].end - 100.0012).abs() < 1e-6);
        assert!(calls[2].carries("POST ") && calls[3].carries("HTTP/1.1 2"));
    }
}
