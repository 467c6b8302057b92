//! The TLS client of a database's connection: how far a server's certificate is trusted. Which words ask for it, each database says itself.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where Debian, Fedora, SUSE and Alpine keep the system's roots.
const SYSTEM_ROOTS: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    Anyone,
    /// Signed by a root, for whatever host.
    Signed,
    /// Signed by a root, for the host that was asked for.
    Full,
}

/// Makes a connection whose server expects it a TLS one; else says why not. Roots are those of the file, or the system's.
pub(crate) async fn wrap<S>(host: &str, trust: Trust, roots_file: Option<&Path>, stream: S) -> Result<TlsStream<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "the host is not a name that a certificate can have")?;
    let connector = TlsConnector::from(Arc::new(config(trust, roots_file)?));
    connector.connect(name, stream).await.map_err(|e| e.to_string())
}

fn config(trust: Trust, roots_file: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Full => roots(roots_file, &provider)?,
        Trust::Signed => Arc::new(Lenient { roots: Some(roots(roots_file, &provider)?), provider }),
        Trust::Anyone => Arc::new(Lenient { roots: None, provider }),
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(given: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let path = given.or_else(|| SYSTEM_ROOTS.iter().map(Path::new).find(|p| p.exists()));
    let path = path.ok_or("no root certificates were found; name a file of them in the address")?;
    let bad = |e: &dyn std::fmt::Display| format!("root certificates of {}: {e}", path.display());
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))? {
        // A system's file may hold a root that this library refuses; it is then not trusted, the others are.
        let added = store.add(certificate.map_err(|e| bad(&e))?);
        if let (Err(e), Some(_)) = (added, given) {
            return Err(bad(&e));
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().map_err(|e| bad(&e))
}

/// Less than full trust: the handshake's signatures are always checked, so that the connection is private to whoever holds the certificate.
#[derive(Debug)]
struct Lenient {
    /// Signed by one of them, for whatever host; none: whoever it is.
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
