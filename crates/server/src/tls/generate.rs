//! `--auto-tls`: a self-signed certificate, made once and kept.
//!
//! etcd makes keys on the curve P-521, which ring cannot use: these are on P-256. A pair that was
//! made by etcd is therefore replaced, with a warning.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tracing::{info, warn};

use super::{Error, read_pair, suites};

/// Longest validity; dates in certificates end with the year 9999.
const YEARS_MAX: u32 = 1000;

/// The certificate and key files in `directory`, made first where they are not there.
pub(super) fn self_signed(
    directory: &Path,
    hosts: &[&str],
    years: u32,
) -> Result<(PathBuf, PathBuf), Error> {
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    if cert.exists() && key.exists() {
        let provider = suites::provider(&[]).map_err(Error::Suites)?;
        match read_pair(&cert, &key, &provider) {
            Ok(_usable) => return Ok((cert, key)),
            Err(error) => {
                let path = cert.display();
                warn!(%path, %error, "replacing an unusable generated certificate");
            }
        }
    }
    let write_error = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(write_error(directory))?;
    let (certificate, private) = generate(hosts, years)?;
    // The key first: a certificate alone would not be taken for a pair after a crash in between.
    write_file(&key, 0o600, &private).map_err(write_error(&key))?;
    info!(path = %key.display(), "created key file");
    write_file(&cert, 0o644, &certificate).map_err(write_error(&cert))?;
    info!(path = %cert.display(), "created cert file");
    Ok((cert, key))
}

fn write_file(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A certificate and its key, PEM.
fn generate(hosts: &[&str], years: u32) -> Result<(String, String), Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let day = std::time::Duration::from_hours(24);
    params.not_before = std::time::SystemTime::now().into();
    params.not_after = params.not_before + day * 365 * years.clamp(1, YEARS_MAX);
    warn!(
        certificate_validity_bound_not_after = %params.not_after,
        "automatically generate certificates"
    );
    for host in hosts.iter().filter(|host| !host.is_empty()) {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_name) => SanType::DnsName((*host).try_into()?),
        });
    }
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
