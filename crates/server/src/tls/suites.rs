//! Cipher suites by the names Go has for them.

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use tracing::warn;

/// TLS 1.2 suites that can be chosen. Those of TLS 1.3 are always on, as in Go.
const CHOICES: &[(&str, SupportedCipherSuite)] = &[
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Suites of TLS 1.3, which are on anyway.
const ALWAYS: &[&str] =
    &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Suites that Go knows and nobody should use: without forward secrecy, or with broken or brittle
/// ciphers.
const NEVER: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// Refuses names that do not exist, and a choice of which nothing is left.
pub(crate) fn check(names: &[String]) -> Result<(), String> {
    let known = |name: &str| {
        CHOICES.iter().any(|(known, _suite)| *known == name)
            || ALWAYS.contains(&name)
            || NEVER.contains(&name)
    };
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(format!("unexpected TLS cipher suite {unknown:?}"));
    }
    if !names.is_empty() && names.iter().all(|name| NEVER.contains(&name.as_str())) {
        return Err(format!("none of the cipher suites {} is supported", names.join(",")));
    }
    Ok(())
}

/// The cryptography to use, with the named suites of TLS 1.2, or all where none is named.
pub(super) fn provider(names: &[String]) -> Result<CryptoProvider, String> {
    check(names)?;
    let mut provider = default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    for name in names.iter().filter(|name| NEVER.contains(&name.as_str())) {
        warn!(cipher_suite = name, "ignoring a cipher suite that is not supported");
    }
    let chosen: Vec<_> = CHOICES
        .iter()
        .filter(|(name, _suite)| names.iter().any(|wanted| wanted == name))
        .map(|(_name, suite)| suite.suite())
        .collect();
    provider.cipher_suites.retain(|suite| {
        matches!(suite, SupportedCipherSuite::Tls13(_)) || chosen.contains(&suite.suite())
    });
    Ok(provider)
}
