// SPDX-License-Identifier: MIT OR Apache-2.0
//! GRUB: what a grub.cfg will boot by default, and the few lines that hold it on a proven kernel.
//! Pure: texts in, values out. Reading grub.cfg and grubenv, and printing, are the caller's.

mod evaluate;
mod expand;
mod pin;
mod syntax;

pub mod default;
pub mod env;
pub mod hold;
pub mod menu;

#[cfg(test)]
mod fixture;

pub use default::{Prediction, predict};
pub use env::GrubEnv;
pub use hold::{Override, override_default};
pub use menu::{Entry, Menu};
