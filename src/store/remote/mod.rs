// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores that machines share: packages of an archive and its signature, by name. What is in a package
//! is nobody's business here. A store that cannot be reached is asked once, and is no failure.

mod credentials;
mod directory;
mod http;
mod oci;
mod resolve;
mod s3;

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};

use super::artefact::MOST_PACKED;
use super::signature::{LONGEST, TRUSTED, Trusted};
use crate::conf::policy::Policy;
use crate::conf::remotes::{Location, Place};
use crate::sys::report::Report;
use crate::sys::root::Root;
use credentials::Credentials;
pub use oci::layers;

/// What a store has under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub archive: Vec<u8>,
    pub signature: Option<Vec<u8>>,
}

/// Behind the name of a package.
const ARCHIVE: &str = ".tar.zst";
/// Behind that of its archive, as minisign(1) looks for it.
const SIGNATURE: &str = ".minisig";

/// Why a store did not answer as it should.
#[derive(Debug)]
enum Trouble {
    /// It is not there, or too slow.
    Unreachable(anyhow::Error),
    /// It answers, but not with what was asked for.
    Answer(anyhow::Error),
}

type Asked<T> = std::result::Result<T, Trouble>;

impl Trouble {
    fn error(self) -> anyhow::Error {
        match self {
            Self::Unreachable(error) | Self::Answer(error) => error,
        }
    }
}

/// A store that has files by name.
trait Files: fmt::Debug + Send {
    /// Nothing if there is none; one that is larger is an error.
    fn get(&self, name: &str, most: u64) -> Asked<Option<Vec<u8>>>;
    fn put(&self, name: &str, content: &[u8]) -> Asked<()>;
}

/// A store that is spoken to.
#[derive(Debug)]
enum Backend {
    Files(Box<dyn Files>),
    /// Has packages as such.
    Registry(Box<oci::Oci>),
}

impl Backend {
    fn open(location: &Location, credentials: Option<Credentials>) -> Result<Self> {
        Ok(match &location.place {
            Place::Directory(path) => Self::Files(Box::new(directory::Directory::new(path))),
            Place::Http(url) => Self::Files(Box::new(http::Http::new(url, credentials)?)),
            Place::Oci { registry, repository } => {
                Self::Registry(Box::new(oci::Oci::new(registry, repository, credentials)?))
            }
            Place::S3 { endpoint, bucket, prefix, region } => {
                Self::Files(Box::new(s3::S3::new(endpoint, (bucket, region), prefix, credentials)?))
            }
        })
    }

    fn fetch(&self, name: &str) -> Asked<Option<Package>> {
        let files = match self {
            Self::Registry(registry) => return registry.pull(name),
            Self::Files(files) => files,
        };
        let file = format!("{name}{ARCHIVE}");
        let Some(archive) = files.get(&file, MOST_PACKED)? else { return Ok(None) };
        let signature = files.get(&format!("{file}{SIGNATURE}"), LONGEST)?;
        Ok(Some(Package { archive, signature }))
    }

    fn push(&self, name: &str, archive: &[u8], signature: &[u8]) -> Asked<()> {
        let files = match self {
            Self::Registry(registry) => return registry.push(name, archive, signature),
            Self::Files(files) => files,
        };
        let file = format!("{name}{ARCHIVE}");
        files.put(&file, archive)?;
        files.put(&format!("{file}{SIGNATURE}"), signature)
    }
}

/// One of the stores that are asked.
#[derive(Debug)]
pub struct Remote {
    location: Location,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    backend: Option<Backend>,
    /// It could not be reached, which has been said.
    given_up: bool,
    /// What else has been said of it.
    said: Vec<String>,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(f)
    }
}

impl Remote {
    /// Asks for a package. What cannot be had is told as a warning, once.
    pub fn fetch(&self, root: &Root, name: &str, report: &Report) -> Option<Package> {
        // One at a time: whoever comes second knows whether it can be reached.
        let mut state = lock(&self.state);
        if state.given_up {
            return None;
        }
        if state.backend.is_none() {
            let opened = Credentials::read(root, &self.location)
                .and_then(|credentials| Backend::open(&self.location, credentials));
            match opened {
                Ok(backend) => state.backend = Some(backend),
                Err(error) => return self.give_up(&mut state, &error, report),
            }
        }
        match state.backend.as_ref()?.fetch(name) {
            Ok(package) => package,
            Err(Trouble::Unreachable(error)) => self.give_up(&mut state, &error, report),
            Err(Trouble::Answer(error)) => {
                let said = format!("asking {self} for built modules, ignoring: {error:#}");
                if !state.said.contains(&said) {
                    report.warning(&said);
                    state.said.push(said);
                }
                None
            }
        }
    }

    fn give_up(&self, state: &mut State, error: &anyhow::Error, report: &Report) -> Option<Package> {
        state.given_up = true;
        report.warning(format_args!("{self} is not asked for built modules: {error:#}"));
        None
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stores that the policy names, and the keys that make them worth asking.
#[derive(Debug, Default)]
pub struct Remotes {
    remotes: Vec<Remote>,
    trusted: OnceLock<Trusted>,
}

impl Remotes {
    /// Speaks to nobody yet.
    pub fn new(policy: &Policy) -> Self {
        let remote = |location: &Location| Remote { location: location.clone(), state: Mutex::default() };
        Self { remotes: policy.remotes.iter().map(remote).collect(), trusted: OnceLock::new() }
    }

    /// Whether there are any, and this machine trusts anybody. Where it trusts nobody, that is told once.
    pub fn can_be_asked(&self, root: &Root, report: &Report) -> bool {
        if self.remotes.is_empty() {
            return false;
        }
        !self.trusted(root, report).is_empty()
    }

    /// The keys that are trusted.
    pub fn trusted(&self, root: &Root, report: &Report) -> &Trusted {
        self.trusted.get_or_init(|| {
            let trusted = Trusted::read(root, report).unwrap_or_else(|error| {
                report.warning(format_args!("reading the keys of shared stores, ignoring: {error:#}"));
                Trusted::default()
            });
            if trusted.is_empty() {
                report.warning(format_args!(
                    "the shared stores of [store] remotes are not asked, because no key is trusted; put the \
                     public key of whoever fills them (store.pub) into {TRUSTED}"
                ));
            }
            trusted
        })
    }

    /// In the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Remote> {
        self.remotes.iter()
    }
}

/// Stores a package in a shared store.
pub fn push(root: &Root, to: &Location, name: &str, archive: &[u8], signature: &[u8]) -> Result<()> {
    let credentials = Credentials::read_to_push(root, to)?;
    let pushed = Backend::open(to, credentials)?.push(name, archive, signature);
    pushed.map_err(Trouble::error).with_context(|| format!("pushing to {to}"))
}
