//! The table at the end of a run, and the text about what went wrong.

use std::collections::BTreeMap;
use std::fmt::Write;

use waterspout::{Counters, IoLoop};

use crate::Outcome;
use crate::tally::Tally;

/// The table: what was done, how fast, and how much work that was for the loop.
pub fn table(tally: &Tally, outcome: &Outcome, counters: &Counters) -> String {
    let seconds = outcome.took.as_secs_f64();
    let (messages, bytes) = (tally.messages(), tally.bytes());
    let latencies = tally.latencies();
    let latency = |nanos: u64| duration(nanos as f64 / 1e9);

    let mut table = format!(
        "an echo server and {} client{} on one loop ({})\n\n",
        grouped(tally.connections()),
        if tally.connections() == 1 { "" } else { "s" },
        IoLoop::selector()
    );
    let mut row = |label: &str, value: String, note: &str| {
        let _ = writeln!(table, "{}", format!("{label:<20}{value:>14}  {note:>12}").trim_end());
    };
    row("messages", grouped(messages), "");
    row("lost", grouped(tally.lost()), "");
    row("errors", grouped(tally.errors()), "");
    row("bytes each way", size(bytes as f64), "");
    row("time", duration(seconds), "");
    row("messages/s", grouped((messages as f64 / seconds) as u64), "");
    row("bytes/s each way", size(bytes as f64 / seconds), "");
    row("latency p50", latency(latencies.permille(500)), "");
    row("latency p99", latency(latencies.permille(990)), "");
    row("latency max", latency(latencies.max()), "");

    row("", String::new(), "");
    row("the loop's work", String::new(), "per message");
    let mut work = |label, count: u64| {
        let each = if messages == 0 { 0.0 } else { count as f64 / messages as f64 };
        row(label, grouped(count), &format!("{each:.3}"));
    };
    work("turns", counters.turns);
    work("selector polls", counters.polls);
    work("events", counters.events);
    work("resumes", counters.resumes);
    work("socket calls", counters.io_calls);
    work("  would block", counters.would_block);
    row("coroutines started", grouped(counters.started), "");
    row("timers fired", grouped(counters.timers), "");
    row("eventfd writes", grouped(counters.notified), "");
    if cfg!(debug_assertions) {
        table += "\nBuilt without optimization: add --release for numbers worth comparing.\n";
    }
    table
}

/// The first errors, and the coroutines that are stuck; empty if all went well.
pub fn complaints(tally: &Tally, outcome: &Outcome) -> String {
    let mut text = String::new();
    let first_errors = tally.first_errors();
    if !first_errors.is_empty() {
        text += "\nthe first errors:\n";
    }
    for error in first_errors.iter() {
        let _ = writeln!(text, "  {error}");
    }
    if let Some(stuck) = &outcome.stuck {
        text += "\nnothing has moved for 10 seconds; these coroutines are alive:\n";
        // Coroutines that are stuck at the same place are counted in one line. Otherwise there might be
        // thousands of lines that say the same.
        let mut alike = BTreeMap::new();
        for coroutine in stuck {
            *alike.entry(coroutine.to_string()).or_insert(0) += 1;
        }
        for (coroutine, count) in alike {
            let _ = writeln!(text, "{:>8} x {coroutine}", grouped(count));
        }
    }
    text
}

/// A number with its thousands apart: 1234567 gives `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

fn size(bytes: f64) -> String {
    match bytes / 1024.0 {
        kib if kib < 1.0 => format!("{bytes:.0} B"),
        kib if kib < 1024.0 => format!("{kib:.1} KiB"),
        kib if kib < 1024.0 * 1024.0 => format!("{:.1} MiB", kib / 1024.0),
        kib => format!("{:.2} GiB", kib / 1024.0 / 1024.0),
    }
}
