//! What clients see, independent of any web framework: error bodies and form parameters.

mod error;
mod params;
pub mod view;

pub use error::{Challenge, WireError};
pub use params::{InvalidParams, Params};
