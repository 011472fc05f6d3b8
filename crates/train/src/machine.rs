//! What this machine has, and how much of it this process takes.

use std::path::Path;

/// Bytes of memory that this process has had at once at most; none where the system does not tell.
pub fn peak_memory() -> Option<u64> {
    bytes("/proc/self/status", "VmHWM:")
}

/// Bytes of memory that this process has now; none where the system does not tell.
pub fn memory() -> Option<u64> {
    bytes("/proc/self/status", "VmRSS:")
}

/// Bytes of memory that a program may still take: what the system has to give, and no more than is left of the limit
/// on the container; none where the system does not tell.
pub fn memory_available() -> Option<u64> {
    let system = bytes("/proc/meminfo", "MemAvailable:")?;
    let number = |file: &str| -> Option<u64> {
        let text = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok()?;
        text.trim().parse().ok()
    };
    // Without a limit `memory.max` says "max".
    let left = number("memory.max")
        .zip(number("memory.current"))
        .map(|(limit, taken)| limit.saturating_sub(taken));
    Some(left.map_or(system, |left| left.min(system)))
}

/// Free bytes on the disk that `path` will be on; none where the system does not tell.
pub fn disk_free(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|path| path.exists())?;
    fs4::available_space(existing).ok()
}

/// A line such as `VmHWM:   123 kB` of a file of the system.
fn bytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_is_asked() {
        let big = vec![1u8; 64 << 20];
        let (now, peak) = (memory().unwrap(), peak_memory().unwrap());
        assert!(now >= big.iter().map(|&byte| u64::from(byte)).sum::<u64>());
        assert!(peak >= now);
        assert!(memory_available().unwrap() > 0);
        // A folder that does not exist yet lies on the disk of the one above it.
        let new = std::env::temp_dir().join("not/there/yet");
        assert!(disk_free(&new).is_some_and(|free| free > 0));
    }
}
