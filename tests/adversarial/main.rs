//! Every way to widen, launder, replay, confuse or outlive a chain of agency that we know of, one test each, on every
//! backend. `README.md` has the table.

mod browser;
mod confuse;
mod launder;
mod outlive;
mod replay;
mod widen;
