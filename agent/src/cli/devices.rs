//! `happy devices`.

use happy_rpc::{Device, DeviceList, DeviceRename, DeviceRevoke, Presence};
use serde::Serialize;

use crate::cli::client::{CallFailure, Client};
use crate::cli::daemon::{connect, wait_for_another};
use crate::cli::output::{BAD, FAINT, Form, GOOD, STRONG, WARN, ago, say, say_sentences, table_with_notes, tame};
use crate::cli::{MachineArg, RevokeArgs, tty};
use crate::daemon::local::{DeviceEntry, Devices, MachineEntry, Machines, PairAgain, RevokeAll};
use crate::service::role_name;
use crate::store::Home;
use crate::trouble::Trouble;

#[derive(Serialize)]
struct Everyone {
    devices: Vec<DeviceEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machines: Option<Vec<MachineEntry>>,
}

/// `happy devices`.
pub async fn list(home: &Home, form: Form, machine: MachineArg) -> Result<u8, Trouble> {
    let client = connect(home, machine.machine.as_deref()).await?;
    let (devices, machines) = match machine.machine {
        None => (client.local(Devices {}).await?, Some(client.local(Machines {}).await?)),
        Some(_) => {
            let told = |device| DeviceEntry { device, pair_again: false, stranger_at: None };
            (devices(&client).await?.into_iter().map(told).collect(), None)
        }
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
    let row = |entry: &DeviceEntry| {
        let device = &entry.device;
        let (style, state) = state(entry);
        vec![
            (STRONG, device.device.chars().take(8).collect()),
            (plain, tame(&device.name, 32)),
            (plain, role_name(device.role).into()),
            (style, state),
            (FAINT, ago(device.added_at)),
        ]
    };
    let below = |entry: &DeviceEntry| format!("    {}", tame(&entry.device.safety_number, 71));
    let rows: Vec<_> = everyone.devices.iter().map(|device| (row(device), below(device))).collect();
    table_with_notes(&["ID", "NAME", "ROLE", "STATE", "PAIRED"], &rows);
    say_sentences(FAINT, "Below each device: the safety number, to compare with the one that it shows.");
    everyone.devices.iter().for_each(explain_device);
    everyone.machines.iter().flatten().for_each(explain_machine);
}

fn state(entry: &DeviceEntry) -> (anstyle::Style, String) {
    match (entry.device.removed_at, entry.pair_again, entry.stranger_at, entry.device.presence) {
        (Some(at), ..) => (BAD, format!("removed {}", ago(at))),
        (None, true, ..) => (WARN, "pair again".into()),
        (None, false, Some(at), Presence::Here) => (WARN, format!("connected; old keys {}", ago(at))),
        (None, false, Some(at), _) => (WARN, format!("old keys {}", ago(at))),
        (None, false, None, Presence::Here) => (GOOD, "connected".into()),
        (None, false, None, Presence::Away) => (FAINT, "away".into()),
        (None, false, None, Presence::Unknown) => (WARN, "unknown: no relay to ask".into()),
    }
}

fn explain_device(entry: &DeviceEntry) {
    let name = tame(&entry.device.name, 64);
    // A machine that was joined is explained as one.
    if let Some(at) = entry.stranger_at {
        let text = format!(
            "Somebody came as {name} with keys that it does not have any more, last {}. If {name} connects as usual, that may have been an old \
             packet, repeated by the relay. If it does not, it was restored from an old copy and has to be paired again, or a copy of it is in \
             strange hands: then remove it with `happy devices revoke '{name}'`.",
            ago(at)
        );
        say_sentences(WARN, &text);
    } else if entry.pair_again {
        let text = format!("{name} was paired with an older version, or its keys are lost: pair it again.");
        say_sentences(WARN, &text);
    }
}

fn explain_machine(machine: &MachineEntry) {
    let name = tame(&machine.name, 64);
    let text = match machine.pair_again {
        _ if machine.removed_us => {
            format!("{name} has removed this machine for good. `happy ls -m '{name}'` says what can be done.")
        }
        Some(PairAgain::NotBelieved) => format!(
            "{name} does not know the keys of this machine any more: this home was restored from an old copy, or somebody else has used a copy \
             of it. Join it again: `happy pair` there, `happy join LINK` here. If a copy may be in strange hands, remove this machine there first."
        ),
        // Said of the device above.
        Some(PairAgain::NoKeys) | None => return,
    };
    say_sentences(WARN, &text);
}

/// `happy devices revoke`.
pub async fn revoke(home: &Home, form: Form, args: RevokeArgs) -> Result<u8, Trouble> {
    match args.device {
        Some(device) => revoke_one(home, form, device, args.machine).await,
        // The arguments see to it that one of the two is given.
        None => revoke_all(home, form, args.yes).await,
    }
}

async fn revoke_one(home: &Home, form: Form, wanted: String, machine: MachineArg) -> Result<u8, Trouble> {
    let client = connect(home, machine.machine.as_deref()).await?;
    let device = find(&client, &wanted).await?;
    let revoked = client.call(DeviceRevoke { device: device.device.clone() }).await;
    revoked.map_err(|failure| client.explain(failure, true))?;
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

/// `happy devices rename`.
pub async fn rename(home: &Home, form: Form, wanted: &str, name: String, machine: MachineArg) -> Result<u8, Trouble> {
    let client = connect(home, machine.machine.as_deref()).await?;
    let device = find(&client, wanted).await?;
    let renamed = client.call(DeviceRename { device: device.device, name }).await;
    let renamed = renamed.map_err(|failure| client.explain(failure, true))?;
    form.result(&renamed, |renamed| {
        say(&format!("{} is called {} from now on.", tame(&device.name, 64), tame(&renamed.name, 64)));
    });
    Ok(0)
}

/// `happy devices revoke --all`.
async fn revoke_all(home: &Home, form: Form, yes: bool) -> Result<u8, Trouble> {
    let client = connect(home, None).await?;
    if !yes && !confirmed(&client, form).await? {
        return Err(Trouble::new("Nothing was removed.", "Type `yes` when you are asked, or give `--yes`."));
    }
    let before = client.greeted().device.clone();
    match client.local(RevokeAll {}).await {
        // It may end before its answer is out.
        Ok(_) | Err(CallFailure::DaemonGone) => {}
        Err(failure) => return Err(failure.into()),
    }
    drop(client);
    let device = wait_for_another(home, &before).await?;
    #[derive(Serialize)]
    struct Renewed {
        device: String,
    }
    form.result(&Renewed { device }, |renewed| {
        say(&format!("Every device is removed for good, and this machine has new keys: it is {} now.", renewed.device));
        say_sentences(FAINT, "Sessions go on. Pair your devices anew with `happy pair`.");
    });
    Ok(0)
}

async fn confirmed(client: &Client, form: Form) -> Result<bool, Trouble> {
    if form == Form::Json || !tty::is_interactive() {
        return Err(Trouble::new(
            "This removes every device and every joined machine for good.",
            "Give `--yes` as well, since nobody can be asked here.",
        ));
    }
    let current = |device: &Device| device.removed_at.is_none();
    let count = client.call(DeviceList {}).await?.iter().filter(|device| current(device)).count();
    say_sentences(
        WARN,
        &format!(
            "This removes all {count} paired devices and joined machines for good, and makes new keys for this machine. Each must be paired \
             again. Sessions go on."
        ),
    );
    say("Type `yes` to go on:");
    let line = crate::cli::stdin::lines().recv().await;
    Ok(line.is_some_and(|line| line.trim().eq_ignore_ascii_case("yes")))
}

async fn devices(client: &Client) -> Result<Vec<Device>, Trouble> {
    client.call(DeviceList {}).await.map_err(|failure| client.explain(failure, false))
}

async fn find(client: &Client, wanted: &str) -> Result<Device, Trouble> {
    let devices = devices(client).await?;
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
