//! Ctrl-C: the first asks for a clean stop, the second quits at once.

use crate::exit;
use crate::printer::Printer;
use gristmill_model::CancellationToken;

/// Listens for Ctrl-C, and for the polite request to end (SIGTERM) that service managers and containers send.
///
/// On a thread and a runtime of its own: when every worker of the big one computes, nobody there hears a signal.
pub(crate) fn listen(printer: &Printer) -> CancellationToken {
    let token = CancellationToken::new();
    let (cancel, printer) = (token.clone(), printer.clone());
    let hear = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if !asked_to_stop().await {
                return;
            }
            printer.warning("stopping; what is staged is thrown away (Ctrl-C again quits at once)");
            cancel.cancel();
            if asked_to_stop().await {
                // The next run, or `gristmill recover`, cleans up after this one.
                #[expect(clippy::exit, reason = "quitting at once is what was asked for")]
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
        });
    };
    // Without the thread Ctrl-C ends the process as it ends any other.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(hear);
    token
}

/// Waits for a signal; false when there is no way to hear one.
async fn asked_to_stop() -> bool {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            return tokio::select! {
                heard = tokio::signal::ctrl_c() => heard.is_ok(),
                heard = terminate.recv() => heard.is_some(),
            };
        }
    }
    tokio::signal::ctrl_c().await.is_ok()
}
