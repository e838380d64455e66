// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key of a build: a digest of everything that it depends on, field by field. Knows nothing of
//! what the fields are. Pure.

use std::fmt;

use blake3::{Hash, Hasher};

/// Changes whenever the same inputs would be digested, or built, otherwise than before.
const FORMAT: &str = "dkms-hooks build 1";

/// The inputs of a build, taken in one by one.
#[derive(Debug)]
pub struct Inputs(Hasher);

impl Default for Inputs {
    fn default() -> Self {
        let mut inputs = Self(Hasher::new());
        inputs.text("format", FORMAT);
        inputs
    }
}

impl Inputs {
    /// A text by its name.
    pub fn text(&mut self, name: &str, value: &str) {
        // With their lengths, no two fields can be taken for another two.
        for part in [name, value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part.as_bytes());
        }
    }

    /// Texts whose number and order matter.
    pub fn texts<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a str>) {
        let values: Vec<&str> = values.into_iter().collect();
        self.text(name, &values.len().to_string());
        values.into_iter().for_each(|value| self.text(name, value));
    }

    /// What was digested elsewhere.
    pub fn digest(&mut self, name: &str, digest: Hash) {
        self.text(name, &digest.to_hex());
    }

    /// Names and values.
    pub fn variables(&mut self, name: &str, variables: &[(String, String)]) {
        self.texts(name, variables.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    }

    /// The key of the build with these inputs.
    pub fn key(&self) -> Key {
        Key(self.hash().to_hex().to_string())
    }

    /// The same, to become an input of something larger.
    pub fn hash(&self) -> Hash {
        self.0.finalize()
    }
}

/// Names one build, and the file in which it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::moved(&["ab", "c"], &["a", "bc"])]
    #[case::fewer(&["a", ""], &["a"])]
    #[case::order(&["a", "b"], &["b", "a"])]
    #[case::none(&[], &[""])]
    fn fields_cannot_be_taken_for_others(#[case] one: &[&str], #[case] two: &[&str]) {
        let key = |values: &[&str]| {
            let mut inputs = Inputs::default();
            inputs.texts("x", values.iter().copied());
            inputs.key()
        };
        assert_ne!(key(one), key(two));
        assert_eq!(key(one), key(one));
        assert_eq!(key(one).as_str().len(), 64);
    }
}
