//! One connection to a broker: connect, negotiate, one request at a time.
//!
//! Owns the socket and the versions that the broker serves. Never retries.

use std::collections::HashMap;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use keelson_protocol::api::{self, ApiSpec};
use keelson_protocol::frame::{LENGTH_PREFIX_BYTES, encode_request};
use keelson_protocol::kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, ResponseHeader,
};
use keelson_protocol::kafka_protocol::protocol::{Decodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{BrokerError, Error, Options};

/// How the version of ApiVersions that is tried first, and the one that every broker knows.
const API_VERSIONS_TRIED: [i16; 2] = [3, 0];

/// A negotiated connection.
pub(crate) struct Connection {
    stream: TcpStream,
    versions: HashMap<i16, (i16, i16)>,
    next_correlation_id: i32,
}

/// Encodes a request for a version and correlation id.
pub(crate) type EncodeFn = dyn Fn(i16, i32) -> Result<BytesMut, String> + Send + Sync;

impl Connection {
    /// Connects and asks what the broker serves, within the connect timeout.
    pub(crate) async fn open(address: &str, options: &Options) -> Result<Self, Error> {
        match timeout(options.connect_timeout, Self::negotiate(address, options)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Connect {
                address: address.to_owned(),
                source: io::Error::new(io::ErrorKind::TimedOut, "connect timeout"),
            }),
        }
    }

    async fn negotiate(address: &str, options: &Options) -> Result<Self, Error> {
        let failed = |source| Error::Connect {
            address: address.to_owned(),
            source,
        };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut connection = Self {
            stream,
            versions: HashMap::new(),
            next_correlation_id: 0,
        };
        for version in API_VERSIONS_TRIED {
            let body = ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("keelson"))
                .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
            let body = if version < 3 {
                ApiVersionsRequest::default()
            } else {
                body
            };
            let client_id = options.client_id.clone();
            let key = ApiKey::ApiVersions as i16;
            let encode = move |version, correlation_id| {
                encode_request(key, version, correlation_id, &client_id, &body)
                    .map_err(|error| error.to_string())
            };
            let (_, mut answer) = connection
                .exchange(spec(ApiKey::ApiVersions), version, &encode, options)
                .await?;
            let code = answer.clone().try_get_i16().unwrap_or(0);
            if code == keelson_protocol::ErrorCode::UnsupportedVersion.code() && version != 0 {
                continue; // The answer is a v0 body; ask again in version 0.
            }
            let answer = ApiVersionsResponse::decode(&mut answer, version)
                .map_err(|error| malformed("ApiVersions", error))?;
            if let Some(error) = BrokerError::from_code(answer.error_code, None) {
                return Err(Error::Broker {
                    api: "ApiVersions",
                    subject: address.to_owned(),
                    error,
                });
            }
            connection.versions = answer
                .api_keys
                .iter()
                .map(|row| (row.api_key, (row.min_version, row.max_version)))
                .collect();
            break;
        }
        Ok(connection)
    }

    /// True if the broker has closed the connection, or talks out of turn, while nothing was asked.
    pub(crate) fn is_stale(&self) -> bool {
        let mut byte = [0];
        match self.stream.try_read(&mut byte) {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }

    /// The highest version that both sides have.
    fn version(&self, spec: &ApiSpec) -> Result<i16, Error> {
        let broker = self.versions.get(&(spec.key as i16)).copied();
        let shared = broker.and_then(|(min, max)| {
            let version = max.min(spec.max);
            (version >= min.max(spec.min)).then_some(version)
        });
        shared.ok_or(Error::Unsupported {
            api: spec.name,
            broker,
            ours: (spec.min, spec.max),
        })
    }

    /// Sends one request and waits for its answer; gives the version used and the answer's body.
    pub(crate) async fn call(
        &mut self,
        spec: &'static ApiSpec,
        encode: &EncodeFn,
        options: &Options,
    ) -> Result<(i16, Bytes), Error> {
        let version = self.version(spec)?;
        match timeout(
            options.request_timeout,
            self.exchange(spec, version, encode, options),
        )
        .await
        {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                api: spec.name,
                after: options.request_timeout,
            }),
        }
    }

    async fn exchange(
        &mut self,
        spec: &'static ApiSpec,
        version: i16,
        encode: &EncodeFn,
        options: &Options,
    ) -> Result<(i16, Bytes), Error> {
        let api = spec.name;
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let request =
            encode(version, correlation_id).map_err(|reason| Error::Malformed { api, reason })?;
        let lost = |source| Error::ConnectionLost { api, source };
        self.stream.write_all(&request).await.map_err(lost)?;
        let mut prefix = [0; LENGTH_PREFIX_BYTES];
        self.stream.read_exact(&mut prefix).await.map_err(lost)?;
        let length = i32::from_be_bytes(prefix);
        let size = usize::try_from(length)
            .ok()
            .filter(|size| *size <= options.response_bytes_max);
        let Some(size) = size else {
            let reason = format!(
                "its frame has {length} bytes, at most {} are read",
                options.response_bytes_max
            );
            return Err(Error::Malformed { api, reason });
        };
        let frame = self.read_frame(size).await.map_err(lost)?;
        let mut frame = frame.freeze();
        let header = ResponseHeader::decode(&mut frame, spec.response_header_version(version))
            .map_err(|error| malformed(api, error))?;
        if header.correlation_id != correlation_id {
            let reason = format!(
                "correlation id {} where {correlation_id} was sent",
                header.correlation_id
            );
            return Err(Error::Malformed { api, reason });
        }
        Ok((version, frame))
    }

    /// Grows with what arrives, so that a wrong length costs nothing.
    async fn read_frame(&mut self, size: usize) -> io::Result<BytesMut> {
        let mut frame = BytesMut::new();
        let mut rest = (&mut self.stream).take(size as u64);
        while frame.len() < size {
            if rest.read_buf(&mut frame).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(frame)
    }
}

/// The table's row of an API that is certainly there.
pub(crate) fn spec(key: ApiKey) -> &'static ApiSpec {
    api::spec(key as i16)
        .unwrap_or_else(|| panic!("{key:?} is in the API table, since this client uses it"))
}

pub(crate) fn malformed(api: &'static str, error: impl std::fmt::Display) -> Error {
    Error::Malformed {
        api,
        reason: error.to_string(),
    }
}
