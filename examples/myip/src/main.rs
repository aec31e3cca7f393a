//! The article's client: asks who we are, prints the address.
//!
//! `MYIP_URL` replaces the address that is asked, and `MYIP_EXTRA_CA` (PEM text) adds a certificate authority to the
//! public ones, so that the program can be tried against a server on this machine.

mod allocator;

use rustls::pki_types::{pem::PemObject, CertificateDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::{env, error::Error, sync::Arc};

#[derive(Deserialize)]
struct ApiRes {
    ip: String,
}

/// The public roots, compiled in since `scratch` has no bundle to find, and the extra ones in `pem`.
fn roots(pem: Option<&str>) -> Result<RootCertStore, Box<dyn Error>> {
    let mut store = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(pem) = pem {
        let before = store.len();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            store.add(certificate?)?;
        }
        if store.len() == before {
            return Err("MYIP_EXTRA_CA holds no PEM certificate".into());
        }
    }
    Ok(store)
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("MYIP_URL").unwrap_or_else(|_| "https://api.myip.com".into());
    let extra = env::var("MYIP_EXTRA_CA").ok();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(extra.as_deref())?)
        .with_no_client_auth();
    let client = reqwest::blocking::Client::builder()
        .tls_backend_preconfigured(tls)
        .build()?;
    let res: ApiRes = client.get(url).send()?.error_for_status()?.json()?;

    println!("{}", res.ip);

    Ok(())
}

#[cfg(test)]
mod tests {
    use super::roots;

    #[test]
    fn public_roots_are_compiled_in() {
        let anchors = roots(None).unwrap().len();
        assert!(anchors > 100, "only {anchors} trust anchors");
    }

    #[test]
    fn an_extra_authority_is_added_to_the_public_ones() {
        let pem = include_str!("../tests/extra-ca.pem");
        let (public, all) = (roots(None).unwrap(), roots(Some(pem)).unwrap());
        assert_eq!(all.len(), public.len() + 1);
    }

    #[test]
    fn an_extra_authority_that_is_none_is_refused() {
        assert!(roots(Some("no certificate")).is_err());
    }
}
