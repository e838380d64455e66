// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shared stores ask of those who come: names and passwords, tokens, keys of buckets. Never part
//! of a policy, and never printed.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::super::signature::ensure_private;
use crate::conf::remotes::Location;
use crate::sys::files;
use crate::sys::root::Root;

/// A table for each store, by the address that the policy has for it.
const FILE: &str = "/etc/dkms/store-credentials.toml";

/// What one store wants to know; it takes of it what it can use.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Credentials {
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Those in the file; nothing if it has none for this store.
    pub fn read(root: &Root, location: &Location) -> Result<Option<Self>> {
        let path = root.path(FILE);
        if !location.is_network() || !files::exists(&path) {
            return Ok(None);
        }
        ensure_private(&path)?;
        let text = files::read_regular_if_there(&path)?.unwrap_or_default();
        match toml::from_str::<BTreeMap<String, Self>>(&text) {
            Ok(mut all) => Ok(all.remove(&location.to_string())),
            // The line itself, which toml would show, may hold a secret.
            Err(error) => {
                let line = 1 + text
                    .get(..error.span().unwrap_or_default().start)
                    .unwrap_or("")
                    .matches('\n')
                    .count();
                bail!(
                    "{}, line {line}: {}",
                    path.display(),
                    error.message().lines().next().unwrap_or("unreadable")
                )
            }
        }
    }

    /// The same for whoever pushes, with what the environment says in the place of what the file does.
    pub fn read_to_push(root: &Root, location: &Location) -> Result<Option<Self>> {
        let Self { user, password, token, access_key, secret_key, session_token } =
            Self::read(root, location)?.unwrap_or_default();
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let found = Self {
            user: get("DKMS_STORE_USER").or(user),
            password: get("DKMS_STORE_PASSWORD").or(password),
            token: get("DKMS_STORE_TOKEN").or(token),
            access_key: get("AWS_ACCESS_KEY_ID").or(access_key),
            secret_key: get("AWS_SECRET_ACCESS_KEY").or(secret_key),
            session_token: get("AWS_SESSION_TOKEN").or(session_token),
        };
        Ok((found != Self::default()).then_some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const TEXT: &str = "[\"https://host/dir\"]\nuser = \"me\"\npassword = \"hush\"\n";

    fn read(text: &str, mode: u32, of: &str) -> Result<Option<Credentials>> {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        files::write_atomically(&root.path(FILE), text.as_bytes(), mode).unwrap();
        Credentials::read(&root, &Location::parse(of).unwrap())
    }

    #[test]
    fn each_store_has_its_own() {
        let found = read(TEXT, 0o600, "https://host/dir").unwrap().unwrap();
        assert_eq!(found.user.as_deref(), Some("me"));
        assert!(!format!("{found:?}").contains("hush"));
        assert_eq!(read(TEXT, 0o600, "https://host/other").unwrap(), None);
    }

    #[rstest]
    #[case::readable(TEXT, 0o644, "chmod 600")]
    #[case::of_the_group(TEXT, 0o640, "chmod 600")]
    #[case::unknown("[\"https://host/dir\"]\npasword = \"hush\"\n", 0o600, "line 2: unknown field")]
    #[case::malformed("[\"https://host/dir\"]\npassword = \"hush\n", 0o600, "line 2")]
    fn what_cannot_be_used_is_told_without_telling_secrets(
        #[case] text: &str,
        #[case] mode: u32,
        #[case] want: &str,
    ) {
        let why = format!("{:#}", read(text, mode, "https://host/dir").unwrap_err());
        assert!(why.contains(want) && !why.contains("hush"), "{why}");
    }
}
