//! `happy devices`.

use happy_rpc::{Device, DeviceList, DeviceRevoke, Presence};
use serde::Serialize;

use crate::cli::MachineArg;
use crate::cli::client::Client;
use crate::cli::daemon::connect;
use crate::cli::output::{BAD, FAINT, Form, GOOD, STRONG, WARN, ago, say, say_sentences, table_with_notes, tame};
use crate::daemon::local::{MachineEntry, Machines};
use crate::service::role_name;
use crate::store::Home;
use crate::trouble::Trouble;

#[derive(Serialize)]
struct Everyone {
    devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machines: Option<Vec<MachineEntry>>,
}

/// `happy devices`.
pub async fn list(home: &Home, form: Form, machine: MachineArg) -> Result<u8, Trouble> {
    let client = connect(home, machine.machine.as_deref()).await?;
    let devices = client.call(DeviceList {}).await?;
    let machines = match machine.machine {
        None => Some(client.local(Machines {}).await?),
        Some(_) => None,
    };
    form.result(&Everyone { devices, machines }, show);
    Ok(0)
}

fn show(everyone: &Everyone) {
    let plain = anstyle::Style::new();
    if everyone.devices.is_empty() {
        say("No device is paired. Pair one with `happy pair`.");
        return;
    }
    let row = |device: &Device| {
        let (style, state) = match (device.removed_at, device.presence) {
            (Some(at), _) => (BAD, format!("removed {}", ago(at))),
            (None, Presence::Here) => (GOOD, "connected".into()),
            (None, Presence::Away) => (FAINT, "away".into()),
            (None, Presence::Unknown) => (WARN, "unknown: no relay to ask".into()),
        };
        vec![
            (STRONG, device.device.chars().take(8).collect()),
            (plain, tame(&device.name, 32)),
            (plain, role_name(device.role).into()),
            (style, state),
            (FAINT, ago(device.added_at)),
        ]
    };
    let below = |device: &Device| format!("    {}", tame(&device.safety_number, 71));
    let rows: Vec<_> = everyone.devices.iter().map(|device| (row(device), below(device))).collect();
    table_with_notes(&["ID", "NAME", "ROLE", "STATE", "PAIRED"], &rows);
    say_sentences(FAINT, "Below each device: the safety number, to compare with the one that it shows.");
    let machines = everyone.machines.as_deref().unwrap_or_default();
    for machine in machines.iter().filter(|machine| machine.removed_us) {
        let name = tame(&machine.name, 64);
        let text = format!("{name} has removed this machine for good. `happy ls -m '{name}'` says what can be done.");
        say_sentences(WARN, &text);
    }
}

/// `happy devices revoke`.
pub async fn revoke(home: &Home, form: Form, wanted: String, machine: MachineArg) -> Result<u8, Trouble> {
    let client = connect(home, machine.machine.as_deref()).await?;
    let device = find(&client, &wanted).await?;
    client.call(DeviceRevoke { device: device.device.clone() }).await?;
    #[derive(Serialize)]
    struct Revoked {
        device: String,
        name: String,
    }
    form.result(&Revoked { device: device.device, name: device.name }, |revoked| {
        say(&format!("{} is removed for good: it is refused from now on.", tame(&revoked.name, 64)));
    });
    Ok(0)
}

async fn find(client: &Client, wanted: &str) -> Result<Device, Trouble> {
    let devices = client.call(DeviceList {}).await?;
    let current: Vec<_> = devices.into_iter().filter(|device| device.removed_at.is_none()).collect();
    // Ids are case-sensitive base64url.
    let (mut fitting, others): (Vec<_>, Vec<_>) =
        current.into_iter().partition(|device| !wanted.is_empty() && device.device.starts_with(wanted));
    if fitting.is_empty() {
        fitting = others.into_iter().filter(|device| device.name == wanted).collect();
    }
    match fitting.len() {
        0 => Err(Trouble::new(
            format!("There is no device `{}`.", tame(wanted, 64)),
            "`happy devices` lists those that are paired.",
        )),
        1 => Ok(fitting.remove(0)),
        _ => {
            let list: Vec<_> = fitting.iter().map(|device| device.device.as_str()).collect();
            Err(Trouble::new(
                format!("`{}` means more than one device: {}.", tame(wanted, 64), list.join(", ")),
                "Give more of the id.",
            ))
        }
    }
}
