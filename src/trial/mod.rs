// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a transaction is about to bring, laid over this system where nobody else sees it: packages
//! taken apart, and a view of the root with them in it. Builds nothing.

mod packages;
mod view;

pub use packages::{Kind, spread};
pub use view::View;
