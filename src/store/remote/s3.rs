// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bucket of an S3-compatible server as a shared store. Requests are signed in their addresses
//! (AWS Signature Version 4); without keys they go as everybody's.

use std::time::Duration;

use anyhow::{Context, Result};
use rusty_s3::{Bucket, Credentials as Keys, S3Action as _, UrlStyle};
use ureq::http::Method;
use url::Url;

use super::credentials::Credentials;
use super::http::{Client, finished, request};
use super::{Asked, Files};

/// How long a signed address holds; no transfer takes longer.
const VALID: Duration = Duration::from_secs(900);

const MOST_OF_AN_ANSWER: u64 = 1 << 16;

#[derive(Debug)]
pub(super) struct S3 {
    client: Client,
    bucket: Bucket,
    prefix: String,
    keys: Option<Keys>,
}

impl S3 {
    pub fn new(
        endpoint: &Url,
        (bucket, region): (&str, &str),
        prefix: &str,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        let keys = credentials.and_then(|found| {
            let (key, secret) = (found.access_key?, found.secret_key?);
            Some(match found.session_token {
                Some(token) => Keys::new_with_token(key, secret, token),
                None => Keys::new(key, secret),
            })
        });
        // Every server knows the bucket as the first part of the path.
        let bucket = Bucket::new(endpoint.clone(), UrlStyle::Path, bucket.to_owned(), region.to_owned());
        Ok(Self {
            client: Client::new(endpoint)?,
            bucket: bucket.context("making the bucket's address")?,
            prefix: prefix.to_owned(),
            keys,
        })
    }
}

impl Files for S3 {
    fn get(&self, name: &str, most: u64) -> Asked<Option<Vec<u8>>> {
        let object = format!("{}{name}", self.prefix);
        let url = self.bucket.get_object(self.keys.as_ref(), &object).sign(VALID);
        let answer = self.client.send(finished(request(Method::GET, &url, None)?, ())?, most)?;
        match answer.status.as_u16() {
            200 => Ok(Some(answer.body)),
            404 => Ok(None),
            _ => Err(answer.refused(&object)),
        }
    }

    fn put(&self, name: &str, content: &[u8]) -> Asked<()> {
        let object = format!("{}{name}", self.prefix);
        let url = self.bucket.put_object(self.keys.as_ref(), &object).sign(VALID);
        let request = finished(request(Method::PUT, &url, None)?, content)?;
        let answer = self.client.send(request, MOST_OF_AN_ANSWER)?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.refused(&object)) }
    }
}
