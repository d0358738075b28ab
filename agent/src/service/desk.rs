//! Files, repositories and names: what calls ask for that is no session.

use std::sync::Arc;

use happy_crypto::DeviceId;
use happy_rpc::{
    CallError, Device, DeviceRename, ErrorCode, FileList, FileListing, FilePart, FileRead, FileWrite, FileWritten,
};

use super::Caller;
use crate::daemon::Daemon;
use crate::files::roots::Roots;
use crate::files::{list, read, write};
use crate::git::{Found, Tree};

/// Does something below the folders that are open now. Where these are is asked of the disk, which may hang.
async fn below_roots<T: Send + 'static>(
    daemon: &Daemon,
    work: impl FnOnce(Roots) -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    let (files, sessions) = (daemon.files().clone(), daemon.sessions().known());
    let roots = move || files.roots(sessions.into_iter().map(|session| session.cwd));
    daemon.files().run(move || work(roots()?)).await
}

pub async fn list_files(daemon: &Daemon, params: FileList) -> Result<FileListing, CallError> {
    below_roots(daemon, move |roots| list::list(&roots, &params)).await
}

pub async fn read_file(daemon: &Daemon, params: FileRead) -> Result<FilePart, CallError> {
    below_roots(daemon, move |roots| read::read(&roots, &params)).await
}

pub async fn write_file(daemon: &Daemon, params: FileWrite) -> Result<FileWritten, CallError> {
    below_roots(daemon, move |roots| write::write(&roots, &params)).await
}

/// Does something in the working tree that a folder is in.
pub async fn in_tree<T>(
    daemon: &Daemon,
    path: &str,
    work: impl AsyncFnOnce(Tree) -> Result<T, CallError>,
) -> Result<T, CallError> {
    let path = path.to_owned();
    let (roots, folder) = below_roots(daemon, move |roots| {
        let folder = roots.folder(&path)?;
        Ok((roots, folder))
    })
    .await?;
    let env = daemon.sessions().environment().await;
    let found = Found::around(&folder, &env).await?;
    let first = found.clone();
    let top = daemon.files().run(move || first.open(&roots)).await?;
    // What runs there finds its repository anew, and settings can send it to another tree.
    if Found::around(&top, &env).await? != found {
        let what = "its repository names a working tree that belongs to another repository";
        return Err(CallError::new(ErrorCode::NotPermitted, what));
    }
    work(Tree::new(top, env).without_filters().await?).await
}

/// Gives a device another name.
pub async fn rename_device(caller: &Arc<Caller>, params: DeviceRename) -> Result<Device, CallError> {
    let malformed = |what: &str| CallError::new(ErrorCode::Malformed, what);
    let device: DeviceId = params.device.parse().map_err(|_| malformed("that is not a device id"))?;
    let name = params.name.trim().to_owned();
    if name.is_empty() || name.len() > 64 || name != crate::store::fit_name(&name) {
        return Err(malformed("a name has 1 to 64 bytes, and no characters that steer a terminal"));
    }
    let daemon = caller.daemon();
    if !daemon.roster().is_member(&device) {
        return Err(CallError::new(ErrorCode::NotFound, "there is no such device; `happy devices` lists them"));
    }
    let work = {
        let daemon = daemon.clone();
        move || daemon.roster().rename(&device, &name)
    };
    let renamed = tokio::task::spawn_blocking(work).await;
    let ending = |_| CallError::new(ErrorCode::Busy, "this machine is ending");
    renamed.map_err(ending)?.map_err(|trouble| CallError::new(ErrorCode::Failed, trouble.what))?;
    daemon.tell_devices();
    let devices = super::devices(daemon, caller.device());
    let found = devices.into_iter().find(|entry| entry.device == params.device);
    found.ok_or_else(|| CallError::new(ErrorCode::NotFound, "the device was removed meanwhile"))
}
