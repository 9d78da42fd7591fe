//! Prometheus' scrapes: `GET /metrics` over HTTP/1.1, one request a connection, nothing else.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const HEAD_BYTES_MAX: usize = 8_192;
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a request's head; whether it asks for the metrics.
pub(crate) async fn asks_for_metrics(stream: &mut TcpStream) -> std::io::Result<bool> {
    let mut head = Vec::new();
    let whole = async {
        let mut part = [0; 1_024];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let length = stream.read(&mut part).await?;
            if length == 0 || head.len() + length > HEAD_BYTES_MAX {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            head.extend_from_slice(&part[..length]);
        }
        Ok::<(), std::io::Error>(())
    };
    timeout(PATIENCE, whole).await??;
    Ok(head.starts_with(b"GET /metrics ") || head.starts_with(b"GET /metrics?"))
}

/// Answers with the metrics, or that there is nothing else here.
pub(crate) async fn answer(stream: &mut TcpStream, text: Option<&str>) -> std::io::Result<()> {
    let (status, body) = match text {
        Some(text) => ("200 OK", text),
        None => ("404 Not Found", "only /metrics is here\n"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let write = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(PATIENCE, write).await?
}
