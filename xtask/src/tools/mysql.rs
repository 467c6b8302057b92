//! A real MySQL, which no stable Debian has: the packages of its unstable one, with every library they want, unpacked into a folder of their own.
//! Nothing of it is installed, and the system's libraries stay as they are: each program is started by the folder's own loader.

use crate::{house, process};
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const SOURCE: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main";
const PACKAGES: [&str; 2] = ["mysql-server-core", "mysql-client-core"];
const PROGRAMS: [(&str, &str); 4] = [
    ("mysqld", "usr/sbin/mysqld"),
    ("mysql", "usr/bin/mysql"),
    ("mysqladmin", "usr/bin/mysqladmin"),
    ("mysqlbinlog", "usr/bin/mysqlbinlog"),
];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The folder of its programs, for `MULGIL_MYSQL_BIN`. Fetched once.
pub fn programs() -> Result<PathBuf> {
    let folder = folder()?;
    let programs = folder.join("bin");
    if programs.is_dir() {
        return Ok(programs);
    }
    println!("fetching {} from Debian's unstable packages", PACKAGES.join(" and "));
    let root = folder.join("root");
    for package in fetch()? {
        process::read(process::command("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    }
    // Complete or not there at all.
    let making = folder.join("bin.new");
    std::fs::create_dir_all(&making)?;
    for (name, path) in PROGRAMS {
        let program = root.join(path);
        ensure!(program.is_file(), "the packages have no {path}");
        starter(&making.join(name), &root, &program)?;
    }
    std::fs::rename(&making, &programs)?;
    Ok(programs)
}

/// Below the system's folder for temporary files, where the server's user can read it. Of this user, and nobody else may write there.
fn folder() -> Result<PathBuf> {
    let us = std::fs::metadata(house::cache()?)?.uid();
    let folder = std::env::temp_dir().join(format!("mulgil-mysql-{us}"));
    std::fs::create_dir_all(&folder)?;
    let found = std::fs::symlink_metadata(&folder)?;
    ensure!(found.is_dir() && found.uid() == us && found.mode() & 0o022 == 0, "{} is not ours alone: remove it", folder.display());
    Ok(folder)
}

/// Has apt find what the packages want, download it and check its signatures, with a state of its own in which nothing is installed.
fn fetch() -> Result<Vec<PathBuf>> {
    let state = house::cache()?.join("mysql-apt");
    let archives = state.join("cache/archives");
    std::fs::create_dir_all(archives.join("partial"))?;
    std::fs::create_dir_all(state.join("lists"))?;
    std::fs::create_dir_all(state.join("none"))?;
    std::fs::write(state.join("sources.list"), SOURCE)?;
    std::fs::write(state.join("status"), "")?;
    let places = [
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::Etc::sourceparts", "none"),
        ("Dir::Etc::preferencesparts", "none"),
        ("Dir::State::lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
    ];
    let places = places.map(|(name, path)| format!("{name}={}", state.join(path).display()));
    let others = ["APT::Install-Recommends=false", "APT::Sandbox::User=root", "Acquire::Languages=none"].map(str::to_owned);
    let apt = |arguments: &[&str]| {
        let mut command = process::command("apt-get");
        places.iter().chain(&others).for_each(|option| {
            command.arg("-o").arg(option);
        });
        process::read(command.arg("-q").args(arguments))
    };
    apt(&["update"])?;
    apt(&[&["-y", "--download-only", "install"], &PACKAGES[..]].concat())
        .context("Debian's unstable packages of MySQL cannot be had at the moment")?;
    let files = std::fs::read_dir(&archives)?.collect::<Result<Vec<_>, _>>()?;
    Ok(files.into_iter().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "deb")).collect())
}

/// A script that runs the program by the loader and the libraries it was built for.
fn starter(at: &Path, root: &Path, program: &Path) -> Result<()> {
    let libraries = root.join(LIBRARIES);
    let text = format!(
        "#!/bin/sh\nexec {0}/ld-linux-x86-64.so.2 --library-path {0}:{0}/private {1} \"$@\"\n",
        libraries.display(),
        program.display()
    );
    std::fs::write(at, text)?;
    std::fs::set_permissions(at, PermissionsExt::from_mode(0o755)).with_context(|| format!("make {} a program", at.display()))
}
