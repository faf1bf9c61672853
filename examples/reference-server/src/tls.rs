//! TLS of the listener: TLS 1.2 and 1.3 by rustls, certificate chain and key from PEM files.

use std::{path::PathBuf, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

use crate::failure::Failure;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The certificate chain, leaf first.
    pub(crate) cert: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

impl TlsFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// [`Failure`] if one cannot be read, or they do not belong together.
    pub(crate) fn load(&self) -> Result<TlsAcceptor, Failure> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| Failure::because(format!("tls.cert `{cert}` cannot be read"), error))?;
        if chain.is_empty() {
            return Err(Failure::new(format!("tls.cert `{cert}` holds no certificate")));
        }
        let secret = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| Failure::because(format!("tls.key `{key}` cannot be read"), error))?;
        // The provider is named: other crates of the process may have installed another, or none.
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Failure::because("TLS is not available", error))?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|error| {
                Failure::because(format!("tls.cert `{cert}` and tls.key `{key}` do not fit"), error)
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
