//! `--secret`, as docker takes it: `id=ID[,src=FILE|,env=NAME][,type=file|env]`. No value is ever part of a message.

use std::collections::BTreeMap;
use std::io::Read as _;

use roadstead_builder::solve::{MAX_SECRET, Secret};

/// Reads all secrets now, so that one that is missing is an error before anything is built.
pub(super) fn read(flags: &[String]) -> Result<BTreeMap<String, Secret>, String> {
    flags.iter().map(|flag| read_one(flag)).collect()
}

fn read_one(flag: &str) -> Result<(String, Secret), String> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in flag.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            // The field may be part of something that nobody is to read.
            return Err("`--secret` takes id=ID[,src=FILE|,env=NAME]: a field is no key=value".to_owned());
        };
        let place = match key.to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "src" | "source" => &mut file,
            "env" => &mut variable,
            "type" => &mut kind,
            _ => return Err(format!("`--secret` has no key `{key}`: it takes id, src, env and type")),
        };
        *place = Some(value.to_owned());
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return Err("`--secret` needs an id: id=ID,src=FILE".to_owned());
    };
    match kind.as_deref() {
        None | Some("file") => {}
        // With this type, `src` names the variable.
        Some("env") => variable = variable.or(file.take()),
        Some(other) => return Err(format!("`--secret` has no type `{other}`: it is file or env")),
    }
    if file.is_some() && variable.is_some() {
        return Err(format!(
            "secret `{id}` has a file and a variable: give one of src and env"
        ));
    }
    let named_alike = kind.is_none() && std::env::var_os(&id).is_some();
    let bytes = match (file, variable) {
        (None, Some(name)) => from_environment(&id, &name)?,
        (None, None) if named_alike || kind.as_deref() == Some("env") => from_environment(&id, &id)?,
        (file, _) => from_file(&id, &file.unwrap_or_else(|| id.clone()))?,
    };
    Ok((id, Secret::new(bytes)))
}

fn from_environment(id: &str, name: &str) -> Result<Vec<u8>, String> {
    use std::os::unix::ffi::OsStringExt as _;
    // As with docker, a variable that is not set is an empty secret; that has sent many an hour after the wrong cause.
    let value = std::env::var_os(name).ok_or_else(|| format!("secret `{id}`: the variable `{name}` is not set"))?;
    Ok(value.into_vec())
}

fn from_file(id: &str, path: &str) -> Result<Vec<u8>, String> {
    let failed = |e| format!("secret `{id}`: cannot read `{path}`: {e}");
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(format!("secret `{id}`: `{path}` is larger than {MAX_SECRET} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_variables_are_read() {
        let path = std::env::temp_dir().join(format!("roadstead-secret-{}", std::process::id()));
        std::fs::write(&path, "hidden").unwrap();
        let hidden = Secret::new(b"hidden".to_vec());
        for flag in ["id=a,src={}", "source={},ID=a", "type=file,id=a,src={}"] {
            let flag = flag.replace("{}", path.to_str().unwrap());
            assert_eq!(read(&[flag]).unwrap()["a"], hidden);
        }
        let own = Secret::new(std::env::var("PATH").unwrap().into_bytes());
        for flag in ["id=a,env=PATH", "id=a,type=env,src=PATH"] {
            assert_eq!(read(&[flag.to_owned()]).unwrap()["a"], own);
        }
        assert_eq!(read(&["id=PATH".to_owned()]).unwrap()["PATH"], own);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is() {
        for (flag, want) in [
            ("src=/etc/hostname", "needs an id"),
            ("id=a,src=/no/such/file", "cannot read `/no/such/file`"),
            ("id=a,env=ROADSTEAD_NOT_SET", "`ROADSTEAD_NOT_SET` is not set"),
            ("id=a,type=vault", "no type `vault`"),
            ("id=a,src=/dev/zero", "larger than"),
            ("id=a,src=x,env=Y", "one of src and env"),
            ("id=a,hunter2", "no key=value"),
        ] {
            let error = read(&[flag.to_owned()]).unwrap_err();
            assert!(error.contains(want) && !error.contains("hunter2"), "{flag}: {error}");
        }
    }
}
