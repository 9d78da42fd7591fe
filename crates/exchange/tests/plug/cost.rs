//! Processor time of other processes, from `/proc`.

use std::fs;

/// User and system time of a process, us. The clock of `/proc` ticks a hundred times a second.
pub fn used_us(pid: u32) -> u64 {
    const TICK_US: u64 = 10_000;
    fields(pid).map_or(0, |fields| (fields[11] + fields[12]) * TICK_US)
}

/// The same of a process and all its children.
pub fn used_by_family_us(pid: u32) -> u64 {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter(|child| fields(*child).is_some_and(|fields| fields[1] == u64::from(pid)));
    used_us(pid) + children.map(used_by_family_us).sum::<u64>()
}

/// The numbers of `/proc/PID/stat` after the name, which may hold anything; the state, a letter, counts as 0.
fn fields(pid: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(|word| word.trim().parse().unwrap_or(0)).collect())
}
