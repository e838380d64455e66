// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine below the domain: paths, programs, files, locks, signals and the printer.
//! Knows nothing about modules or kernels.

pub mod ancestors;
pub mod clock;
pub mod confine;
pub mod files;
pub mod journal;
pub mod lock;
pub mod memory;
pub mod mounts;
pub mod namespace;
pub mod report;
pub mod root;
pub mod signals;
pub mod tools;
