//! The TLS client of a MySQL connection: how far a server's certificate is trusted, by `ssl-mode`.

use super::error::WireError;
use super::packet::Io;
use crate::mysql::settings::{Address, SslMode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Makes a connection whose server expects it a TLS one.
pub(super) async fn wrap(address: &Address, tcp: Io) -> Result<Io, WireError> {
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| WireError::Tls("the host is not a name that a certificate can have".into()))?;
    let connector = TlsConnector::from(Arc::new(config(address)?));
    let stream = connector.connect(name, tcp).await.map_err(|e| WireError::Tls(e.to_string()))?;
    Ok(Box::pin(stream))
}

fn config(address: &Address) -> Result<ClientConfig, WireError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| WireError::Tls(e.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = match address.ssl_mode {
        SslMode::VerifyIdentity => roots(address, &provider)?,
        SslMode::VerifyCa => Arc::new(Lenient { roots: Some(roots(address, &provider)?), provider }),
        SslMode::Required | SslMode::Preferred | SslMode::Disabled => Arc::new(Lenient { roots: None, provider }),
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(address: &Address, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, WireError> {
    let path = address.ssl_ca.as_ref().ok_or_else(|| WireError::Tls("no ssl-ca is named".into()))?;
    let bad = |e: &dyn std::fmt::Display| WireError::Tls(format!("root certificates of {}: {e}", path.display()));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))? {
        store.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().map_err(|e| bad(&e))
}

/// Less than full trust: whoever holds the certificate, signed by a root if there are some, for whatever host. The handshake's signatures
/// are always checked.
#[derive(Debug)]
struct Lenient {
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        match roots.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
