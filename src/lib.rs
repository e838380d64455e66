// SPDX-License-Identifier: MIT OR Apache-2.0
pub mod cli;
pub mod conf;
pub mod failure;
pub mod kernel;
pub mod module;
pub mod module_file;
pub mod sys;
pub mod tree;
