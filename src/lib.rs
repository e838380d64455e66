// SPDX-License-Identifier: MIT OR Apache-2.0
pub mod cli;
pub mod conf;
pub mod failure;
pub mod gate;
pub mod kernel;
pub mod module;
