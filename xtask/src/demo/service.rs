//! The service, started from the files that umoci unpacked.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::command::program;
use crate::error::{Result, TaskError};
use crate::http;
use crate::server::{Server, free_port};
use crate::workspace::is_root;

use super::job::string;
use super::proof::Unpacked;
use super::site::Site;

/// Starts the service as the image's configuration says, prints its answers, and ends it.
pub(super) fn ask(site: &Site<'_>, image: &Unpacked) -> Result<()> {
    let port = free_port()?;
    let mut command = in_root(image)?;
    for variable in strings(&image.config, "/config/Env") {
        let Some((name, value)) = variable.split_once('=') else {
            continue;
        };
        command.env(name, value);
    }
    command.env("HOST", "127.0.0.1").env("PORT", port.to_string());
    let mut server = Server::start("the service", &mut command, &site.path("service.log"))?;
    for path in ["/healthz", "/"] {
        let (status, body) = server.wait_for(|_| http::get(port, path).ok())?;
        println!("GET {path}: {status} {}", body.trim());
        if status != 200 {
            return Err(TaskError::new(format!(
                "the service answers {status}\n\n{}",
                server.log()
            )));
        }
    }
    Ok(())
}

/// Prepares the image's command in the image's root, as the image's user.
fn in_root(image: &Unpacked) -> Result<Command> {
    let directory = string(&image.config, "/config/WorkingDir")?;
    let mut command;
    if is_root() {
        let user = string(&image.config, "/config/User")?;
        let (user, group) = user_and_group(&image.root, &user)?;
        println!("as uid {user}, gid {group}, in {directory}");
        command = program("/usr/sbin/chroot");
        command
            .env_clear()
            .arg(&image.root)
            .args(["/usr/bin/env", "-C", &directory]);
        // Another user's process loses the signal asked for outside, so it asks again.
        command.args([
            "/usr/bin/setpriv",
            "--reuid",
            &user,
            "--regid",
            &group,
            "--clear-groups",
            "--pdeathsig",
            "TERM",
            "--",
        ]);
    } else {
        command = program("/usr/bin/unshare");
        command
            .env_clear()
            .args(["--map-current-user", "--wd", &directory, "--root"])
            .arg(&image.root);
    }
    let words: Vec<String> = ["/config/Entrypoint", "/config/Cmd"]
        .iter()
        .flat_map(|at| strings(&image.config, at))
        .collect();
    println!("{}", words.join(" "));
    command.args(words);
    Ok(command)
}

fn strings(value: &Value, pointer: &str) -> Vec<String> {
    let array = value.pointer(pointer).and_then(Value::as_array);
    array
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Looks a user up in the image's own `/etc/passwd`.
fn user_and_group(root: &Path, user: &str) -> Result<(String, String)> {
    let path = root.join("etc/passwd");
    let text = std::fs::read_to_string(&path).map_err(TaskError::at("read", &path))?;
    find_user(&text, user).ok_or_else(|| TaskError::new(format!("the image has no user `{user}`")))
}

fn find_user(passwd: &str, user: &str) -> Option<(String, String)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [name, _, id, group, ..] if *name == user || *id == user => Some(((*id).to_owned(), (*group).to_owned())),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1001::/home/node:/bin/bash\nbroken";
        let node = Some(("1000".to_owned(), "1001".to_owned()));
        assert_eq!(find_user(passwd, "node"), node);
        assert_eq!(find_user(passwd, "1000"), node);
        assert_eq!(find_user(passwd, "broken"), None);
        assert_eq!(find_user(passwd, "x"), None);
    }
}
