// SPDX-License-Identifier: MIT OR Apache-2.0
//! dkms.conf, framework.conf and policy.toml: pure parsers and typed results.
//! Nothing here reads a file or starts a program; `tree::registered` does both.

use std::collections::BTreeMap;

/// Shell variables as arrays with possibly sparse indexes; a scalar is element 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, BTreeMap<usize, String>>);
