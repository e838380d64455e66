// SPDX-License-Identifier: MIT OR Apache-2.0
//! dkms-hooks
pub mod build;
pub mod cli;
pub mod commands;
pub mod conf;
pub mod failure;
pub mod gate;
pub mod hook;
pub mod initramfs;
pub mod install;
pub mod kernel;
pub mod module;
pub mod module_file;
pub mod plan;
pub mod sys;
pub mod tree;

/// Our version, as `dkms --version` prints it behind `dkms-`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
