//! A way to a broker that fails as it is told, one request at a time.
//!
//! Owns the faults that a broker under test cannot be asked for: an answer that makes no sense, a change that is only
//! pretended, a connection that ends before or after a request had its effect. It knows frames and API keys, whether words
//! stand in a request, and one byte of one request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kafka_protocol::messages::ApiKey;

/// An API key in the head of a request.
pub type Api = i16;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaFault {
    /// Nothing special.
    Pass,
    /// The connection ends, and the broker never hears of it.
    Cut,
    /// The broker does it, and the connection ends before the answer.
    Lose,
    /// The answer is rubbish.
    Garble,
    /// IncrementalAlterConfigs: the broker only checks it, and the answer looks as if it had been done.
    Pretend,
}

/// A request as the proxy saw it.
#[derive(Debug, Clone)]
pub struct KafkaAsked {
    /// Which API.
    pub api: Api,
    frame: Vec<u8>,
}

impl KafkaAsked {
    /// Whether a string of the request has these words in it.
    pub fn says(&self, words: &str) -> bool {
        let mut windows = self.frame.windows(words.len());
        windows.any(|it| it == words.as_bytes())
    }
}

type Rule = Box<dyn FnMut(&KafkaAsked) -> KafkaFault + Send>;

struct State {
    broker: String,
    rule: Mutex<Rule>,
    reached: Mutex<Vec<KafkaAsked>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub struct KafkaProxy {
    address: String,
    state: Arc<State>,
}

impl KafkaProxy {
    /// Listens on a free port; everything passes.
    pub fn start(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State {
            broker: broker.to_owned(),
            rule: Mutex::new(Box::new(|_| KafkaFault::Pass)),
            reached: Mutex::default(),
        });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                // A connection that breaks is what this is for.
                std::thread::spawn(move || drop(serve(&state, client)));
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What becomes of requests from now on, by their API.
    pub fn rule(&self, mut rule: impl FnMut(Api) -> KafkaFault + Send + 'static) {
        self.rule_on(move |asked| rule(asked.api));
    }

    /// The same, by all that the proxy sees of them.
    pub fn rule_on(&self, rule: impl FnMut(&KafkaAsked) -> KafkaFault + Send + 'static) {
        *lock(&self.state.rule) = Box::new(rule);
    }

    /// The requests that the broker got so far.
    pub fn reached(&self) -> Vec<KafkaAsked> {
        lock(&self.state.reached).clone()
    }

    /// Everything passes again.
    pub fn calm(&self) {
        self.rule(|_| KafkaFault::Pass);
    }
}

/// Whether a request of this API changes the cluster.
pub fn is_order(api: Api) -> bool {
    [
        ApiKey::CreateTopics,
        ApiKey::CreatePartitions,
        ApiKey::IncrementalAlterConfigs,
        ApiKey::DeleteTopics,
    ]
    .iter()
    .any(|it| *it as i16 == api)
}

fn serve(state: &State, mut client: TcpStream) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect(&state.broker)?;
    upstream.set_nodelay(true)?;
    client.set_nodelay(true)?;
    loop {
        let mut request = frame(&mut client)?;
        let asked = KafkaAsked {
            api: i16::from_be_bytes([request[4], request[5]]),
            frame: request.clone(),
        };
        let fault = lock(&state.rule)(&asked);
        match fault {
            KafkaFault::Cut => return Ok(()),
            KafkaFault::Pretend if asked.api == ApiKey::IncrementalAlterConfigs as i16 => {
                assert_eq!(
                    request[6..8],
                    [0, 1],
                    "the version whose form is known here"
                );
                // The last two bytes: validate_only, and no tagged fields.
                let at = request.len() - 2;
                request[at] = 1;
            }
            KafkaFault::Pass | KafkaFault::Lose | KafkaFault::Garble | KafkaFault::Pretend => {}
        }
        lock(&state.reached).push(asked);
        upstream.write_all(&request)?;
        let mut answer = frame(&mut upstream)?;
        match fault {
            KafkaFault::Lose => return Ok(()),
            // Behind the length and the correlation id.
            KafkaFault::Garble => answer[8..].fill(0xff),
            KafkaFault::Pass | KafkaFault::Pretend | KafkaFault::Cut => {}
        }
        client.write_all(&answer)?;
    }
}

/// One frame with its length.
fn frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let bytes = usize::try_from(i32::from_be_bytes(length))
        .map_err(|_| std::io::Error::other("a negative length"))?;
    let mut frame = length.to_vec();
    frame.resize(4 + bytes, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}
