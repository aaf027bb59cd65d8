//! The runner's side: the socket, the links on PATH, and a task for each call.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roadstead_proto::record::{PushedImage, Record};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::context::Context;
use super::frame::{self, Kind, Request};
use super::session::{Gone, Session};
use super::{NAMES, aws, deploy, docker};
use crate::client::Network;
use crate::environment;
use crate::error::FileError;
use crate::logs::Secrets;
use crate::scratch::Scratch;

/// Time the calls have to end when the run does: a build takes its mounts and files away in it.
const GRACE: Duration = Duration::from_secs(12);
/// Time a new connection has to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Why the shims could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot listen for the docker and aws commands of the job")]
    Listen(#[source] io::Error),
}

/// The runner's side of the shims; serves until [`Server::stop`].
#[derive(Debug)]
pub(crate) struct Server {
    context: Arc<Context>,
    links: PathBuf,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    serving: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Server {
    /// Sets up links and socket in `scratch` and begins to serve. Needs a tokio runtime.
    pub(crate) fn start(scratch: &Scratch, secrets: &Secrets, network: &Network) -> Result<Self, ShimError> {
        let links = scratch.directory("bin")?;
        let binary = std::env::current_exe().map_err(ShimError::Listen)?;
        for name in NAMES.into_iter().chain(["roadstead"]) {
            let link = links.join(name);
            symlink(&binary, &link).map_err(FileError::at("create", &link))?;
        }
        let socket = scratch.path().join("shim.sock");
        let listener = UnixListener::bind(&socket).map_err(ShimError::Listen)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
            .map_err(FileError::at("set the mode of", &socket))?;
        let context = Arc::new(Context::new(
            scratch.directory("docker")?,
            secrets.clone(),
            network.clone(),
        ));
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, Arc::clone(&context), stopped));
        Ok(Self {
            context,
            links,
            socket,
            stop,
            serving: tokio::sync::Mutex::new(Some(serving)),
        })
    }

    /// The variables a command needs to find the shims; PATH is what goes before the rest.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("PATH", self.links.clone().into()),
            (environment::SHIM_SOCKET, self.socket.clone().into()),
            (environment::DOCKER_CONFIG, self.context.docker_config().into()),
            (environment::JOB_LOGINS, self.context.docker_config().into()),
        ]
    }

    /// Ends what is still being served and gives what was pushed.
    pub(crate) async fn stop(&self) -> Vec<PushedImage> {
        self.stop.send_replace(true);
        if let Some(serving) = self.serving.lock().await.take()
            && let Err(error) = serving.await
        {
            tracing::warn!(%error, "the shims' server ended badly");
        }
        self.context.pushed()
    }

    /// Checks an `imagedefinitions.json` among the artifacts; the error says what is wrong with it.
    pub(crate) async fn check_deploy_files(&self, artifacts: &Path, record: &Record) -> Result<(), String> {
        deploy::check(&self.context, artifacts, record).await
    }
}

async fn serve(listener: UnixListener, context: Arc<Context>, stopped: watch::Receiver<bool>) {
    let mut stop = Gone(stopped.clone());
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    calls.spawn(answer(stream, Arc::clone(&context), stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a docker or aws command");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = calls.join_next() => log_end(ended),
            () = stop.wait() => break,
        }
    }
    let all = async {
        while let Some(ended) = calls.join_next().await {
            log_end(ended);
        }
    };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        calls.abort_all();
    }
}

fn log_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "a docker or aws command ended badly");
    }
}

/// Serves one call to its end. The call is cancelled when its shim goes away or the run ends.
async fn answer(stream: UnixStream, context: Arc<Context>, stopped: watch::Receiver<bool>) {
    let mut stop = Gone(stopped);
    let (mut reader, writer) = stream.into_split();
    let first = tokio::time::timeout(REQUEST_TIME, frame::read_async(&mut reader)).await;
    let Ok(Ok((Kind::Request, payload))) = first else {
        return;
    };
    let Ok(request) = serde_json::from_slice::<Request>(&payload) else {
        return;
    };
    let (stdin, pieces) = mpsc::channel(4);
    let (gone, is_gone) = watch::channel(false);
    // The reader forwards stdin, and its end tells that the shim is gone.
    let watching = tokio::spawn(async move {
        let forward = async {
            while let Ok((Kind::Stdin, piece)) = frame::read_async(&mut reader).await {
                if stdin.send(piece).await.is_err() {
                    // Nobody wants stdin; what comes next can only be the end.
                    while frame::read_async(&mut reader).await.is_ok() {}
                    break;
                }
            }
        };
        tokio::select! {
            () = forward => {}
            () = stop.wait() => {}
        }
        gone.send_replace(true);
    });
    let mut session = Session::new(request, writer, pieces, Gone(is_gone));
    let status = dispatch(&context, &mut session).await;
    // The shim may be gone, in which case nobody is left to tell.
    drop(session.exit(status).await);
    watching.abort();
}

async fn dispatch(context: &Context, session: &mut Session) -> u8 {
    let result = match session.request.program.as_str() {
        "docker" => docker::serve(context, session).await,
        "aws" => aws::serve(context, session).await,
        "roadstead" => session.json(&context.pushed()).await.map(|()| 0),
        other => session.fail(&format!("{other} is not served by roadstead")).await,
    };
    match result {
        Ok(status) => status,
        // The caller itself may be what failed; then nobody hears it.
        Err(error) => session.fail(&format!("error: {error}")).await.unwrap_or(1),
    }
}
