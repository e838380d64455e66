// SPDX-License-Identifier: MIT OR Apache-2.0
//! The addresses of shared stores, `[store] remotes`: a directory, an HTTP server, an OCI registry,
//! an S3 bucket. What goes over the network in the clear has to say so by its scheme. Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

/// A shared store, as the policy names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Location {
    text: String,
    pub place: Place,
}

/// What kind of store it is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An absolute path.
    Directory(PathBuf),
    /// The address of a directory, with a slash at its end.
    Http(Url),
    Oci {
        /// `https://host:port/`
        registry: Url,
        repository: String,
    },
    S3 {
        endpoint: Url,
        bucket: String,
        /// Empty, or with a slash at its end.
        prefix: String,
        region: String,
    },
}

impl Location {
    /// Understands an address; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let place =
            if text.starts_with('/') { Place::Directory(Path::new(text).to_owned()) } else { of_url(text)? };
        Ok(Self { text: text.to_owned(), place })
    }

    /// Whether it is reached over the network.
    pub fn is_network(&self) -> bool {
        !matches!(self.place, Place::Directory(_))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Location {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

const KINDS: &str =
    "an absolute path, https://, oci:// or s3:// (http://, oci+http:// and s3+http:// are not encrypted)";

fn of_url(text: &str) -> Result<Place, String> {
    let url = Url::parse(text).map_err(|why| format!("'{text}' is no address ({why}): give {KINDS}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        // Everybody may read the policy, and so it is not repeated here either.
        return Err("names and passwords do not belong into an address, but into \
                    /etc/dkms/store-credentials.toml"
            .to_owned());
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| format!("'{text}' names no host"))?.to_owned();
    if url.fragment().is_some() || (url.query().is_some() && !url.scheme().starts_with("s3")) {
        return Err(format!("'{text}' has more than a path behind its host"));
    }
    let path = url.path().trim_matches('/');
    match url.scheme() {
        "http" | "https" => {
            let mut url = url.clone();
            url.set_path(&if path.is_empty() { "/".to_owned() } else { format!("/{path}/") });
            Ok(Place::Http(url))
        }
        scheme @ ("oci" | "oci+http") => {
            let is_part = |part: &str| {
                part.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
            };
            if !path.split('/').all(is_part) {
                return Err(format!("'{text}' names no repository (oci://host/repository, in lower case)"));
            }
            let host = url.port().map_or(host.clone(), |port| format!("{host}:{port}"));
            let registry = secured(scheme == "oci", &host).map_err(|why| format!("'{text}': {why}"))?;
            Ok(Place::Oci { registry, repository: path.to_owned() })
        }
        scheme @ ("s3" | "s3+http") => of_bucket(text, &url, host, path, scheme == "s3"),
        _ => Err(format!("'{text}' is none of the stores that are known: give {KINDS}")),
    }
}

fn of_bucket(text: &str, url: &Url, bucket: String, path: &str, secure: bool) -> Result<Place, String> {
    let (mut endpoint, mut region) = (None, "us-east-1".to_owned());
    for (name, value) in url.query_pairs() {
        match &*name {
            "endpoint" => endpoint = Some(value.into_owned()),
            "region" => region = value.into_owned(),
            _ => {
                return Err(format!("'{text}' has the unknown part '{name}': endpoint and region are known"));
            }
        }
    }
    let endpoint = endpoint.unwrap_or_else(|| format!("s3.{region}.amazonaws.com"));
    let scheme = if secure { "https://" } else { "http://" };
    let endpoint = match endpoint.split_once("://") {
        None => endpoint.as_str(),
        Some(_) => endpoint.strip_prefix(scheme).ok_or_else(|| {
            format!("'{text}': its endpoint has to begin with {scheme}, or be a host alone (s3+http:// is not encrypted)")
        })?,
    };
    let endpoint =
        secured(secure, endpoint.trim_end_matches('/')).map_err(|why| format!("'{text}': {why}"))?;
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    Ok(Place::S3 { endpoint, bucket, prefix, region })
}

fn secured(secure: bool, host: &str) -> Result<Url, String> {
    let url = Url::parse(&format!("{}://{host}/", if secure { "https" } else { "http" }));
    url.map_err(|why| format!("'{host}' is no host ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::directory("/srv/modules", "Directory(\"/srv/modules\")")]
    #[case::https("https://host/dir", "https://host/dir/")]
    #[case::in_the_clear("http://127.0.0.1:8080", "http://127.0.0.1:8080/")]
    #[case::oci("oci://host:5000/group/modules", "https://host:5000/ group/modules")]
    #[case::oci_in_the_clear("oci+http://[::1]:5000/modules", "http://[::1]:5000/ modules")]
    #[case::s3("s3://bucket/pre/fix?region=eu", "https://s3.eu.amazonaws.com/ bucket pre/fix/ eu")]
    #[case::s3_elsewhere("s3://b?endpoint=https://minio:9000", "https://minio:9000/ b  us-east-1")]
    #[case::s3_in_the_clear("s3+http://b/p?endpoint=127.0.0.1:9&region=x", "http://127.0.0.1:9/ b p/ x")]
    fn addresses_are_understood(#[case] text: &str, #[case] want: &str) {
        let location = Location::parse(text).unwrap();
        let got = match &location.place {
            place @ Place::Directory(_) => format!("{place:?}"),
            Place::Http(url) => url.to_string(),
            Place::Oci { registry, repository } => format!("{registry} {repository}"),
            Place::S3 { endpoint, bucket, prefix, region } => {
                format!("{endpoint} {bucket} {prefix} {region}")
            }
        };
        assert_eq!(got, want);
        assert_eq!(location.to_string(), text);
    }

    #[rstest]
    #[case::relative("srv/modules", "is no address")]
    #[case::other_scheme("ftp://host/dir", "none of the stores")]
    #[case::secret("https://user:secret@host/dir", "store-credentials.toml")]
    #[case::no_repository("oci://host", "names no repository")]
    #[case::upper_case("oci://host/Modules", "names no repository")]
    #[case::query("https://host/dir?x=1", "more than a path")]
    #[case::unknown_part("s3://b?zone=1", "unknown part 'zone'")]
    #[case::endpoint_in_the_clear("s3://b?endpoint=http://host", "has to begin with https://")]
    fn what_is_no_address_is_told(#[case] text: &str, #[case] want: &str) {
        let why = Location::parse(text).unwrap_err();
        assert!(why.contains(want), "{why}");
        assert!(!why.contains("secret@"), "{why}");
    }
}
