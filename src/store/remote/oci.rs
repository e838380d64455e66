// SPDX-License-Identifier: MIT OR Apache-2.0
//! A repository of an OCI registry as a shared store: a package is an artifact, its name a tag
//! (OCI Distribution Specification 1.1, OCI Image Manifest 1.1, "Guidelines for Artifact Usage").

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ureq::http::header::{ACCEPT, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, Method};
use url::Url;

use super::super::artefact::MOST_PACKED;
use super::super::signature::LONGEST;
use super::credentials::Credentials;
use super::http::{Answer, Client, basic, finished, request};
use super::{Asked, Package, Trouble, lock};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const ARTIFACT: &str = "application/vnd.dkms-hooks.module.v1";
const ARCHIVE: &str = "application/vnd.dkms-hooks.module.v1.tar+zstd";
const SIGNATURE: &str = "application/vnd.dkms-hooks.module.v1.minisig";

/// A manifest of ours is less than one KiB.
const MOST_OF_A_MANIFEST: u64 = 1 << 18;

#[derive(Debug)]
pub(super) struct Oci {
    client: Client,
    registry: Url,
    repository: String,
    credentials: Option<Credentials>,
    /// What the registry has let us in with.
    token: Mutex<Option<String>>,
}

/// A part of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    media_type: String,
    pub digest: String,
    pub size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(media_type: &str, content: &[u8]) -> Self {
        let digest = Sha256::digest(content);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{hex}"),
            size: content.len() as u64,
        }
    }
}

/// The archive and, if there is one, the signature that a manifest speaks of. It comes from elsewhere:
/// what it says goes into addresses.
pub fn layers(manifest: &[u8]) -> Result<(Descriptor, Option<Descriptor>)> {
    let manifest: Manifest = serde_json::from_slice(manifest).context("reading its manifest")?;
    let find = |media_type: &str, most: u64| -> Result<Option<Descriptor>> {
        let layer = manifest.layers.iter().find(|layer| layer.media_type == media_type);
        let Some(layer) = layer else { return Ok(None) };
        let hex = layer.digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
        let is_digest = hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        ensure!(is_digest, "its manifest names the digest {:?}", layer.digest);
        ensure!(layer.size <= most, "what it sends is larger than {most} bytes");
        Ok(Some(layer.clone()))
    };
    let archive = find(ARCHIVE, MOST_PACKED)?.context("its manifest is of something else than modules")?;
    Ok((archive, find(SIGNATURE, LONGEST)?))
}

impl Oci {
    pub fn new(registry: &Url, repository: &str, credentials: Option<Credentials>) -> Result<Self> {
        Ok(Self {
            client: Client::new(registry)?,
            registry: registry.clone(),
            repository: repository.to_owned(),
            credentials,
            token: Mutex::default(),
        })
    }

    /// The package with this tag.
    pub fn pull(&self, tag: &str) -> Asked<Option<Package>> {
        let answer =
            self.ask(Method::GET, &self.url(&format!("manifests/{tag}"))?, None, MOST_OF_A_MANIFEST)?;
        match answer.status.as_u16() {
            200 => {}
            404 => return Ok(None),
            _ => return Err(answer.refused(tag)),
        }
        let (archive, signature) = layers(&answer.body).map_err(Trouble::Answer)?;
        let signature = signature.map(|signature| self.blob(&signature)).transpose()?;
        Ok(Some(Package { archive: self.blob(&archive)?, signature }))
    }

    /// Stores a package; the tag comes last, so that nobody sees a part of it.
    pub fn push(&self, tag: &str, archive: &[u8], signature: &[u8]) -> Asked<()> {
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: ARTIFACT.to_owned(),
            config: self.upload(EMPTY, b"{}")?,
            layers: vec![self.upload(ARCHIVE, archive)?, self.upload(SIGNATURE, signature)?],
            annotations: BTreeMap::from([("org.opencontainers.image.title".to_owned(), tag.to_owned())]),
        };
        let manifest =
            serde_json::to_vec(&manifest).context("writing a manifest").map_err(Trouble::Answer)?;
        let body = Some((MANIFEST, manifest.as_slice()));
        let url = self.url(&format!("manifests/{tag}"))?;
        let answer = self.ask(Method::PUT, &url, body, MOST_OF_A_MANIFEST)?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.refused(tag)) }
    }

    fn url(&self, path: &str) -> Asked<Url> {
        let url = self.registry.join(&format!("v2/{}/{path}", self.repository));
        url.context("making an address").map_err(Trouble::Answer)
    }

    fn blob(&self, layer: &Descriptor) -> Asked<Vec<u8>> {
        let url = self.url(&format!("blobs/{}", layer.digest))?;
        let answer = self.ask(Method::GET, &url, None, layer.size)?;
        if answer.status.as_u16() != 200 {
            return Err(answer.refused(&layer.digest));
        }
        if Descriptor::of(&layer.media_type, &answer.body).digest != layer.digest {
            return Err(Trouble::Answer(anyhow!("{} is not what it sends for that", layer.digest)));
        }
        Ok(answer.body)
    }

    fn upload(&self, media_type: &str, content: &[u8]) -> Asked<Descriptor> {
        let blob = Descriptor::of(media_type, content);
        let there = self.ask(Method::HEAD, &self.url(&format!("blobs/{}", blob.digest))?, None, 0)?;
        if there.status.as_u16() == 200 {
            return Ok(blob);
        }
        let uploads = self.url("blobs/uploads/")?;
        let begun =
            self.ask(Method::POST, &uploads, Some(("application/octet-stream", b"")), MOST_OF_A_MANIFEST)?;
        let place = begun.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(place) = place.filter(|_| begun.status.as_u16() == 202) else {
            return Err(begun.refused("an upload"));
        };
        let mut url =
            uploads.join(place).context("reading the place for an upload").map_err(Trouble::Answer)?;
        url.query_pairs_mut().append_pair("digest", &blob.digest);
        let body = Some(("application/octet-stream", content));
        let answer = self.ask(Method::PUT, &url, body, MOST_OF_A_MANIFEST)?;
        if answer.status.is_success() { Ok(blob) } else { Err(answer.refused("an upload")) }
    }

    /// Sends a request, and once more if the registry wants to know who asks.
    fn ask(&self, method: Method, url: &Url, body: Option<(&str, &[u8])>, most: u64) -> Asked<Answer> {
        let token = lock(&self.token).clone();
        let answer = self.send(method.clone(), url, body, most, token.as_deref())?;
        if answer.status.as_u16() != 401 {
            return Ok(answer);
        }
        let Some(token) = self.let_in(&answer.headers)? else { return Ok(answer) };
        let answer = self.send(method, url, body, most, Some(&token))?;
        *lock(&self.token) = Some(token);
        Ok(answer)
    }

    fn send(
        &self,
        method: Method,
        url: &Url,
        body: Option<(&str, &[u8])>,
        most: u64,
        token: Option<&str>,
    ) -> Asked<Answer> {
        // An upload may go elsewhere, where nobody needs to know who we are for the registry.
        let own = url.origin() == self.registry.origin();
        let request = request(method, url, token.filter(|_| own))?;
        match body {
            None => self.client.send(finished(request.header(ACCEPT, MANIFEST), ())?, most),
            Some((kind, content)) => {
                self.client.send(finished(request.header(CONTENT_TYPE, kind), content)?, most)
            }
        }
    }

    /// What the registry's challenge asks for (RFC 7235; "Token Authentication Specification" of
    /// distribution): a password, or a token of its token server. Nothing if we have none.
    fn let_in(&self, headers: &HeaderMap) -> Asked<Option<String>> {
        let asked = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let challenges = http_auth::parse_challenges(asked).unwrap_or_default();
        let known = self.credentials.as_ref();
        let password = known
            .and_then(|known| basic(known.user.as_deref()?, known.password.as_deref().unwrap_or_default()));
        for challenge in challenges {
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                return Ok(password);
            }
            if !challenge.scheme.eq_ignore_ascii_case("bearer") {
                continue;
            }
            if let Some(token) = known.and_then(|known| known.token.as_ref()) {
                return Ok(Some(format!("Bearer {token}")));
            }
            let given = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            let realm = given("realm").unwrap_or_default();
            return self.token(&realm, &given, password.as_deref()).map(Some);
        }
        Ok(None)
    }

    fn token(
        &self,
        realm: &str,
        given: &dyn Fn(&str) -> Option<String>,
        password: Option<&str>,
    ) -> Asked<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut url = Url::parse(realm)
            .with_context(|| format!("its token server is said to be {realm:?}"))
            .map_err(Trouble::Answer)?;
        if let Some(service) = given("service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        for scope in given("scope").unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()) {
            url.query_pairs_mut().append_pair("scope", scope);
        }
        let asked = request(Method::GET, &url, password)?;
        let answer = self.client.send(finished(asked, ())?, MOST_OF_A_MANIFEST)?;
        if !answer.status.is_success() {
            return Err(answer.refused("its token server"));
        }
        let found: Result<Token> = serde_json::from_slice(&answer.body).context("reading its token");
        let found = found.map_err(Trouble::Answer)?;
        let token = found.token.or(found.access_token).context("its token server has no token for us");
        Ok(format!("Bearer {}", token.map_err(Trouble::Answer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::serve;
    use super::*;
    use rstest::rstest;

    const END: &str = "connection: close\r\n\r\n";

    #[test]
    fn a_registry_that_asks_for_a_token_gets_one_of_its_token_server() {
        let challenge = "401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://127.0.0.1:PORT/token\",service=\"lab\",scope=\"repository:fleet:pull,push\"\r\n";
        let (url, asked) = serve(&[
            &format!("{challenge}{END}"),
            &format!("200 OK\r\n{END}{{\"token\": \"t0ken\"}}"),
            &format!("404 Not Found\r\n{END}"),
            &format!("404 Not Found\r\n{END}"),
        ]);
        let text = |text: &str| Some(text.to_owned());
        let known = Credentials { user: text("me"), password: text("hush"), ..Credentials::default() };
        let registry = Oci::new(&url.join("/").unwrap(), "fleet", Some(known)).unwrap();
        assert!(registry.pull("tag").unwrap().is_none());
        assert!(registry.pull("other").unwrap().is_none());
        let asked = asked.join().unwrap();
        assert!(asked[0].starts_with("get /v2/fleet/manifests/tag ") && !asked[0].contains("authorization"));
        assert!(
            asked[1].starts_with("get /token?service=lab&scope=repository%3afleet%3apull%2cpush "),
            "{}",
            asked[1]
        );
        assert!(asked[1].contains("authorization: basic "), "{}", asked[1]);
        // Once let in, nobody is asked again.
        assert!(asked[2..].iter().all(|asked| asked.contains("authorization: bearer t0ken")), "{asked:?}");
    }

    fn manifest(kind: &str, digest: &str, size: u64) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"x","size":2}},
               "layers":[{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}]}}"#
        )
    }

    #[rstest]
    #[case::good(ARCHIVE, &format!("sha256:{}", "0a".repeat(32)), 7, "")]
    #[case::leads_elsewhere(ARCHIVE, &format!("sha256:{}", "../".repeat(21) + "x"), 7, "names the digest")]
    #[case::other_digest(ARCHIVE, "sha512:00", 7, "names the digest")]
    #[case::large(ARCHIVE, &format!("sha256:{}", "0a".repeat(32)), 1 << 40, "is larger than")]
    #[case::an_image("application/vnd.oci.image.layer.v1.tar+gzip", "x", 7, "something else than modules")]
    fn a_manifest_is_read_with_care(
        #[case] kind: &str,
        #[case] digest: &str,
        #[case] size: u64,
        #[case] want: &str,
    ) {
        let read = layers(manifest(kind, digest, size).as_bytes());
        let said = read.as_ref().map_or_else(|why| format!("{why:#}"), |_| String::new());
        assert!(said.contains(want) && said.is_empty() == want.is_empty(), "{said}");
        assert!(layers(b"{}").is_err());
    }
}
