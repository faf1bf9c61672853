//! Requests as inputs: method and target, a line for each field, an empty line, the content.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

/// The most fields of a request.
const MAX_FIELDS: usize = 64;

/// The request that `text` is, if it is one that a server would see.
pub fn request(text: &[u8]) -> Option<Request<Bytes>> {
    let (head, content) = match position(text, b"\n\n") {
        Some(at) => (&text[..at], &text[at + 2..]),
        None => (text, &b""[..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let method = Method::from_bytes(&first[..space]).ok()?;
    let uri = Uri::try_from(&first[space + 1..]).ok()?;
    let mut request = Request::new(Bytes::copy_from_slice(content));
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    for line in lines.take(MAX_FIELDS) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(request)
}

/// Where `part` begins in `text`.
pub fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
