//! `empty-pingora LISTEN INSTANCE`: a proxy with no filter at all, on one thread, with an accept loop like lb's.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream as Tcp;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{HttpProxy, ProxyHttp, Session};

struct Empty {
    instance: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Empty {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.instance, false, String::new())))
    }
}

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<SocketAddr>().expect("an address with a port"));
    let (Some(listen), Some(instance)) = (words.next(), words.next()) else { panic!("empty-pingora LISTEN INSTANCE") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(listen, instance));
}

async fn serve(listen: SocketAddr, instance: SocketAddr) {
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut proxy = HttpProxy::new(Empty { instance }, Arc::new(conf));
    proxy.handle_init_modules();
    let proxy = Arc::new(proxy);
    let listener = tokio::net::TcpListener::bind(listen).await.expect("the port is free");
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (proxy, stopping) = (Arc::clone(&proxy), stopping.clone());
        tokio::spawn(async move {
            let mut tcp = Tcp::from(stream);
            let _ = tcp.set_nodelay();
            let mut stream: Stream = Box::new(tcp);
            let mut settings: Option<HttpPersistentSettings> = None;
            loop {
                let mut session = ServerSession::new_http1(stream);
                match settings.take() {
                    Some(settings) => settings.apply_to_session(&mut session),
                    None => session.set_keepalive(Some(60)),
                }
                let Some(reusable) = proxy.process_new_http(session, &stopping).await else { return };
                (stream, settings) = reusable.consume();
            }
        });
    }
}
