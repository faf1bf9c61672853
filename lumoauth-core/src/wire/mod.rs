//! What clients see, independent of any web framework: error bodies, form parameters, entity tags.

mod error;
mod etag;
mod params;
pub mod view;

pub use error::{Challenge, WireError};
pub use etag::{EntityTag, IfMatch, InvalidIfMatch, Tagged};
pub use params::{InvalidParams, Params};
