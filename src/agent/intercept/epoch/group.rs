//! The group that the node's agents make their sockets with: a secret of theirs, one for all of them.
//!
//! In: the state directory. Out: the group. Blocks on local files only. File: `group`. Invariants: nobody else can guess it,
//! and agents that follow each other have the same one, so that each knows the others' sockets.

use std::fs;
use std::io;
use std::ops::RangeInclusive;

use super::StateDir;
use crate::agent::intercept::InterceptError;

/// Groups that agents draw from; the one above them all means "none".
const GROUPS: RangeInclusive<u32> = 1 << 31..=u32::MAX - 1;

impl StateDir {
    /// The group that the node's agents make their sockets with, drawn by the first of them: a random number from the upper half,
    /// where no system puts groups of its own. Needs no lock: of two that draw at once one is first.
    pub fn group(&self) -> Result<u32, InterceptError> {
        self.make()?;
        if let Some(group) = self.read_group() {
            return Ok(group);
        }
        let drawn = draw().map_err(|error| self.failed("group", error))?;
        self.put_group_back(drawn)?;
        // What was there and is no group is damage.
        if self.read_group().is_none() {
            let _ = fs::remove_file(self.path.join("group"));
            self.put_group_back(drawn)?;
        }
        let read = self.read_group();
        read.ok_or_else(|| self.failed("group", io::ErrorKind::InvalidData.into()))
    }

    /// Puts the group back if somebody removed it, so that the next agent does not draw another one.
    pub fn put_group_back(&self, group: u32) -> Result<(), InterceptError> {
        let place = self.path.join("group");
        if place.exists() {
            return Ok(());
        }
        self.make()?;
        // It has its name only once it is whole, and whoever is second leaves the first one's.
        let name = format!(".group.{group}");
        let fresh = self.path.join(&name);
        let written = (|| {
            let mut file = self.open(&name)?;
            io::Write::write_all(&mut file, format!("{group}\n").as_bytes())?;
            match fs::hard_link(&fresh, &place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        })();
        let _ = fs::remove_file(&fresh);
        written.map_err(|error| self.failed("group", error))
    }

    fn read_group(&self) -> Option<u32> {
        let group = self.read("group")?.trim().parse().ok()?;
        GROUPS.contains(&group).then_some(group)
    }
}

/// Others must not guess it.
fn draw() -> io::Result<u32> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).map_err(io::Error::other)?;
    Ok((u32::from_ne_bytes(bytes) | GROUPS.start()).min(*GROUPS.end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::intercept::epoch::tests::dir;

    #[tokio::test]
    async fn a_group_is_drawn_once_and_stays_until_all_is_removed() {
        let (_dir, state) = dir();
        let group = state.group().unwrap();
        assert!(GROUPS.contains(&group));
        assert_eq!(state.group().unwrap(), group);
        let mode = fs::metadata(state.path.join("group"))
            .unwrap()
            .permissions();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
            0o600
        );
        // Agents that live put it back; the next one takes it from there.
        fs::remove_file(state.path.join("group")).unwrap();
        state.put_group_back(group).unwrap();
        state.put_group_back(group ^ 1).unwrap();
        assert_eq!(state.group().unwrap(), group);
        for damage in ["", "0", "1000", "4294967295", "x"] {
            fs::write(state.path.join("group"), damage).unwrap();
            let other = state.group().unwrap();
            assert!(
                other != group && state.group().unwrap() == other,
                "{damage:?}"
            );
        }
        assert_eq!(
            fs::read_dir(&state.path).unwrap().count(),
            1,
            "nothing else is left"
        );
        let lock = state.lock().await.unwrap();
        assert!(state.clear(lock).contains(&"group".to_owned()));
    }
}
