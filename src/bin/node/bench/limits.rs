//! What the machine itself can do.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use gradmesh_actors::product::{Onto, multiply};
use ndarray::Array2;
use tokio::time::Instant;

use super::row::median;

/// A thread that takes `bytes` and then sends as many, again and again, as a server that is pushed
/// to and answers. Ends with the connection.
#[derive(Debug)]
pub(super) struct RawPeer {
    stream: TcpStream,
    out: Vec<u8>,
    back: Vec<u8>,
}

impl RawPeer {
    #[expect(clippy::disallowed_methods, reason = "measures the machine, without a runtime")]
    pub(super) fn start(bytes: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("loopback")?;
        let address = listener.local_addr()?;
        thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let (mut taken, sent) = (vec![0; bytes], vec![1; bytes]);
            loop {
                stream.read_exact(&mut taken)?;
                black_box(&taken);
                stream.write_all(&sent)?;
            }
        });
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: vec![2; bytes], back: vec![0; bytes] })
    }

    fn exchange(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out)?;
        self.stream.read_exact(&mut self.back)?;
        black_box(&self.back);
        Ok(())
    }

    /// Median time of one exchange.
    pub(super) fn measure(&mut self, lasts: Duration) -> anyhow::Result<Duration> {
        self.exchange()?;
        let started = Instant::now();
        let mut times = Vec::new();
        while started.elapsed() < lasts || times.len() < 3 {
            let began = Instant::now();
            self.exchange()?;
            times.push(began.elapsed().as_secs_f64());
        }
        Ok(Duration::from_secs_f64(median(times.into_iter())))
    }
}

/// Gigabytes of gradient a second in `w -= lr * g` of one thread over `len` values.
pub(super) fn update_rate(len: usize, lasts: Duration) -> f64 {
    let (mut parameters, gradient) = (vec![1.0f32; len], vec![1e-3f32; len]);
    let time = per_call(lasts, || {
        for (parameter, gradient) in parameters.iter_mut().zip(&gradient) {
            *parameter -= 0.1 * gradient;
        }
        black_box(&mut parameters);
    });
    (len * size_of::<f32>()) as f64 / time.as_secs_f64() / 1e9
}

/// Floating-point operations a second of `threads` products of n × n matrices side by side.
pub(super) fn product_rate(n: usize, threads: usize, lasts: Duration) -> f64 {
    let one = || {
        let (a, b) = (Array2::<f32>::ones((n, n)), Array2::<f32>::ones((n, n)));
        let mut c = Array2::zeros((n, n));
        let time = per_call(lasts, || {
            multiply(a.view(), b.view(), Onto::Nothing, c.view_mut());
            black_box(&mut c);
        });
        2.0 * (n as f64).powi(3) / time.as_secs_f64()
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
    })
}

/// Median time of a call, of those that fit in `lasts`, at least three.
pub(super) fn per_call(lasts: Duration, mut call: impl FnMut()) -> Duration {
    call();
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed() < lasts || times.len() < 3 {
        let began = Instant::now();
        call();
        times.push(began.elapsed().as_secs_f64());
    }
    Duration::from_secs_f64(median(times.into_iter()))
}
