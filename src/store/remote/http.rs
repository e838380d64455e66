// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of an HTTP server as a shared store (GET, and PUT as WebDAV has it), and what every
//! store behind HTTP needs: a client with the system's certificates, limits of time and size, and the
//! proxies of the environment.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderMap, Method, Request, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, AsSendBody};
use url::Url;

use super::credentials::Credentials;
use super::resolve::SystemResolver;
use super::{Asked, Files, Trouble};
use crate::sys::signals;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// For all of an archive: 256 MiB take that long at 2 MiB/s.
const BODY: Duration = Duration::from_secs(120);
const UPLOAD: Duration = Duration::from_secs(600);

/// What of an answer that is an error is read for people.
const MOST_OF_AN_ERROR: u64 = 1 << 16;

/// Speaks HTTP.
#[derive(Debug)]
pub(super) struct Client(Agent);

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Client {
    /// A client for a server, which answers in the clear only if that is asked for.
    pub fn new(server: &Url) -> Result<Self> {
        let secure = server.scheme() == "https";
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(secure)
            .timeout_connect(Some(CONNECT))
            .timeout_resolve(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(BODY))
            .timeout_send_body(Some(UPLOAD))
            .max_redirects(5)
            .user_agent(format!("dkms-hooks/{}", crate::VERSION));
        if secure {
            config = config.tls_config(tls()?);
        }
        Ok(Self(Agent::with_parts(config.build(), DefaultConnector::default(), SystemResolver)))
    }

    /// Sends a request. Of an answer that says yes so many bytes are read, and more are an error.
    pub fn send(&self, request: Request<impl AsSendBody>, most: u64) -> Asked<Answer> {
        let response = self.0.run(request).map_err(|error| Trouble::Unreachable(explained(error)))?;
        let (head, body) = response.into_parts();
        let good = head.status.is_success();
        let most = if good { most } else { MOST_OF_AN_ERROR };
        // The bound is our own, so that the limit of the client is out of the way.
        let mut reader = body.into_with_config().limit(u64::MAX).reader().take(most + 1);
        let (mut content, mut part) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let count = reader.read(&mut part).map_err(|error| Trouble::Unreachable(error.into()))?;
            if count == 0 {
                break;
            }
            content.extend_from_slice(&part[..count]);
            if signals::caught().is_some() {
                return Err(Trouble::Unreachable(anyhow!("a signal asked to stop")));
            }
        }
        if content.len() as u64 > most && good {
            return Err(Trouble::Answer(anyhow!("what it sends is larger than {most} bytes")));
        }
        Ok(Answer { status: head.status, headers: head.headers, body: content })
    }
}

fn explained(error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::HostNotFound => anyhow!("there is no such host"),
        ureq::Error::Timeout(what) => anyhow!("it took too long ({what})"),
        other => anyhow!("{other}"),
    }
}

/// The authorities that this system trusts, and no others.
fn tls() -> Result<TlsConfig> {
    let found = rustls_native_certs::load_native_certs();
    let authorities: Vec<_> =
        found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    ensure!(!authorities.is_empty(), "this system trusts no authority; install the package ca-certificates");
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&authorities))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

impl Answer {
    /// The error for a status that nobody expected.
    pub fn refused(&self, what: &str) -> Trouble {
        let advice = match self.status.as_u16() {
            401 | 403 => "; credentials go into /etc/dkms/store-credentials.toml",
            _ => "",
        };
        Trouble::Answer(anyhow!("{what} is answered with {}{advice}", self.status))
    }
}

/// A request with the credentials that a server asks for.
pub(super) fn request(
    method: Method,
    url: &Url,
    authorization: Option<&str>,
) -> Asked<ureq::http::request::Builder> {
    let mut builder = Request::builder().method(method).uri(url.as_str());
    if let Some(authorization) = authorization {
        let value = ureq::http::HeaderValue::from_str(authorization);
        let mut value = value.context("reading the credentials").map_err(Trouble::Unreachable)?;
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    Ok(builder)
}

/// A request as it is sent.
pub(super) fn finished<B>(builder: ureq::http::request::Builder, body: B) -> Asked<Request<B>> {
    builder.body(body).context("making a request").map_err(Trouble::Answer)
}

/// What goes into the header Authorization (RFC 7617, RFC 6750).
pub(super) fn authorization(credentials: &Credentials) -> Option<String> {
    let Credentials { user, password, token, .. } = credentials;
    if let Some(token) = token {
        return Some(format!("Bearer {token}"));
    }
    basic(user.as_deref()?, password.as_deref().unwrap_or_default())
}

pub(super) fn basic(user: &str, password: &str) -> Option<String> {
    use base64::Engine as _;
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))
}

/// A directory of a server.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    directory: Url,
    authorization: Option<String>,
}

impl Http {
    pub fn new(directory: &Url, credentials: Option<Credentials>) -> Result<Self> {
        let authorization = credentials.as_ref().and_then(authorization);
        Ok(Self { client: Client::new(directory)?, directory: directory.clone(), authorization })
    }

    fn url(&self, name: &str) -> Asked<Url> {
        self.directory.join(name).context("making an address").map_err(Trouble::Answer)
    }
}

impl Files for Http {
    fn get(&self, name: &str, most: u64) -> Asked<Option<Vec<u8>>> {
        let request = request(Method::GET, &self.url(name)?, self.authorization.as_deref())?;
        let answer = self.client.send(finished(request, ())?, most)?;
        match answer.status.as_u16() {
            200 => Ok(Some(answer.body)),
            404 | 410 => Ok(None),
            _ => Err(answer.refused(name)),
        }
    }

    fn put(&self, name: &str, content: &[u8]) -> Asked<()> {
        let request = request(Method::PUT, &self.url(name)?, self.authorization.as_deref())?;
        let answer = self.client.send(finished(request, content)?, MOST_OF_AN_ERROR)?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.refused(name)) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    /// A server that answers one request after the other with what it is given, where `PORT` is its
    /// own; the result are its address and, once it has ended, what it was asked.
    pub fn serve(answers: &[&str]) -> (Url, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers: Vec<String> =
            answers.iter().map(|answer| answer.replace("PORT", &port.to_string())).collect();
        let asked = std::thread::spawn(move || {
            let answer = |answer: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.extend(byte);
                }
                // Whoever has read enough may have gone.
                let _ = write!(stream, "HTTP/1.1 {answer}");
                String::from_utf8(head).unwrap().to_lowercase()
            };
            answers.into_iter().map(answer).collect()
        });
        (Url::parse(&format!("http://127.0.0.1:{port}/dir/")).unwrap(), asked)
    }

    const GONE: &str = "404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn a_password_goes_to_the_server_that_it_is_for() {
        let moved = "302 Found\r\nlocation: http://localhost:PORT/x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let (url, asked) = serve(&[moved, GONE]);
        let password = |text: &str| Some(text.to_owned());
        let known =
            Credentials { user: password("me"), password: password("hush"), ..Credentials::default() };
        assert!(Http::new(&url, Some(known)).unwrap().get("a", 9).unwrap().is_none());
        let asked = asked.join().unwrap();
        assert!(asked[0].starts_with("get /dir/a http/1.1\r\n"), "{}", asked[0]);
        assert!(asked[0].contains("authorization: basic bwu6ahvzaa=="), "{}", asked[0]);
        assert!(!asked[1].contains("authorization"), "{}", asked[1]);
    }

    #[test]
    fn no_more_is_read_than_there_may_be() {
        let full = "200 OK\r\nconnection: close\r\n\r\n1234567890";
        let (url, _asked) = serve(&[
            full,
            full,
            "500 No\r\nconnection: close\r\n\r\nwhy",
            "200 OK\r\ncontent-length: 9\r\n\r\n12",
        ]);
        let http = Http::new(&url, None).unwrap();
        assert_eq!(http.get("a", 10).unwrap().unwrap(), b"1234567890");
        let Err(Trouble::Answer(why)) = http.get("a", 9) else { panic!("it was read") };
        assert_eq!(why.to_string(), "what it sends is larger than 9 bytes");
        let Err(Trouble::Answer(why)) = http.get("a", 9) else { panic!("it was read") };
        assert_eq!(why.to_string(), "a is answered with 500 Internal Server Error");
        assert!(matches!(http.get("a", 9), Err(Trouble::Unreachable(_))));
    }

    #[test]
    fn what_is_asked_for_encrypted_is_not_had_in_the_clear() {
        let url = Url::parse("https://127.0.0.1:1/").unwrap();
        let Ok(client) = Client::new(&url) else { return };
        let plain = Request::get("http://127.0.0.1:1/").body(()).unwrap();
        let Err(Trouble::Unreachable(why)) = client.send(plain, 9) else { panic!("it was sent") };
        assert!(why.to_string().contains("https"), "{why}");
    }
}
