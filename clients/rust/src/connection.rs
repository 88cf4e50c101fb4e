use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::{Error, Subscribe, Work};

const USER_AGENT: &str = concat!("linksgate-rust/", env!("CARGO_PKG_VERSION"));
/// What 512 of the largest notifications fit into.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;

type TokenSource = Arc<dyn Fn() -> std::io::Result<String> + Send + Sync>;

/// How to reach the gateways of one log. Each subscription and each worker has a connection of its
/// own. Clones are cheap.
#[derive(Clone, Default)]
pub struct Client {
    addresses: Vec<String>,
    tls: bool,
    ca_file: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    token: Option<TokenSource>,
}

impl Client {
    /// A client of the gateways at some addresses, `HOST:PORT` each, which are tried one after the
    /// other. It connects when it is used.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Self {
        Self { addresses: addresses.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Connects with TLS and the system's certificate authorities.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Connects with TLS, and trusts the PEM certificates of a file instead of the system's. It is
    /// read for each new connection.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self.tls()
    }

    /// Connects with TLS and a client certificate. The files are read for each new connection.
    pub fn certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((cert.into(), key.into()));
        self.tls()
    }

    /// Sends a bearer token. Over plain text it is refused, unless all addresses are of the loopback
    /// interface.
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.token_source(move || Ok(token.clone()))
    }

    /// Sends the bearer token that is in a file, which is read for each call.
    pub fn token_file(self, file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        self.token_source(move || Ok(std::fs::read_to_string(&file)?.trim().to_owned()))
    }

    /// Asks for the bearer token of each call.
    pub fn token_source(
        mut self,
        source: impl Fn() -> std::io::Result<String> + Send + Sync + 'static,
    ) -> Self {
        self.token = Some(Arc::new(source));
        self
    }

    /// What to subscribe to; see [`Subscribe`].
    pub fn subscribe(&self) -> Subscribe {
        Subscribe::new(self.clone())
    }

    /// Work in a group; see [`Work`].
    pub fn work<F>(&self, group: impl Into<String>, handler: F) -> Work<F> {
        Work::new(self.clone(), group.into(), handler)
    }

    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.addresses.is_empty() {
            return Err(Error::Options("no address".into()));
        }
        for address in &self.addresses {
            let parts = address.rsplit_once(':').filter(|(_, p)| p.parse::<u16>().is_ok());
            let Some((host, _)) = parts else {
                return Err(Error::Options(format!("{address:?} is not HOST:PORT")));
            };
            if self.token.is_some() && !self.tls && !is_loopback(host) {
                let text = format!("a token would go to {address} in plain text; use TLS");
                return Err(Error::Options(text));
            }
        }
        Ok(())
    }

    /// A new connection, with what the files hold now. It connects at the first call.
    fn connect(&self, address: &str) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
        let scheme = if self.tls { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .user_agent(USER_AGENT)?
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        if self.tls {
            let mut tls = ClientTlsConfig::new();
            tls = match &self.ca_file {
                Some(file) => tls.ca_certificate(Certificate::from_pem(std::fs::read(file)?)),
                None => tls.with_native_roots(),
            };
            if let Some((cert, key)) = &self.identity {
                tls = tls.identity(Identity::from_pem(std::fs::read(cert)?, std::fs::read(key)?));
            }
            endpoint = endpoint.tls_config(tls)?;
        }
        Ok(endpoint.connect_lazy())
    }

    /// A request with the credential of this moment.
    pub(crate) fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        if let Some(source) = &self.token {
            // A file that cannot be read now may be later.
            let token = source().map_err(|e| Status::unavailable(format!("token: {e}")))?;
            let value = MetadataValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Status::unauthenticated("the token cannot be sent"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The connection of one subscription or worker: to one gateway at a time.
pub(crate) struct Link {
    pub(crate) client: Client,
    channel: Option<Channel>,
    at: usize,
}

impl Link {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, channel: None, at: 0 }
    }

    pub(crate) fn get(&mut self) -> Result<Channel, Status> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let address = &self.client.addresses[self.at % self.client.addresses.len()];
        match self.client.connect(address) {
            Ok(channel) => Ok(self.channel.insert(channel).clone()),
            Err(error) => Err(Status::unavailable(format!("{address}: {error}"))),
        }
    }

    /// Leaves the connection for a new one, to the next address.
    pub(crate) fn next(&mut self) {
        self.at += 1;
        self.channel = None;
    }
}

/// How long to wait before the next try after a number of failures in a row, all of it by chance.
pub(crate) fn back_off(failures: u32) -> Duration {
    let most = Duration::from_millis(100) * 2u32.pow(failures.min(7));
    most.min(Duration::from_secs(10)).mul_f64(rand::random::<f64>()) + Duration::from_millis(1)
}

/// A time of the API.
pub(crate) fn duration(d: Option<prost_types::Duration>) -> Duration {
    d.and_then(|d| Duration::try_from(d).ok()).unwrap_or_default()
}

pub(crate) fn to_proto(d: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(d).ok()
}
