//! How a leader's commands are carried out.

use actix::{AsyncContext, Context, Recipient};
use tracing::{info, warn};

use super::publishing::{NotPublished, publish};
use super::{ANSWER_MAX, Coordinator, RETRY_AFTER};
use crate::checkpoint::{Finished, Manifest};
use crate::ids::ShardCopy;
use crate::messages::checkpoint_store::{CheckpointError, CommitCheckpoint, OpenCheckpoints};
use crate::messages::{AdoptView, FindModel, LeaseSlots, RestoreError, RestoreShard, ask};
use crate::training::Command;
use crate::version::VersionRef;

impl Coordinator {
    pub(super) fn carry_out(&mut self, commands: Vec<Command>, ctx: &mut Context<Self>) {
        debug_assert!(self.may_act(&commands));
        for command in commands {
            match command {
                Command::Open(open) => self.open(open, ctx),
                Command::Confirm(finished) => self.confirm(*finished, ctx),
                Command::RaiseView { above, state } => self.raise_view(above, &state, ctx),
                Command::Restore(restore) => self.restore(*restore, ctx),
                Command::Adopt(adopt) => self.adopt(adopt, ctx),
                Command::Lease(lease) => self.lease(lease, ctx),
                Command::Commit(manifest) => self.commit(*manifest, ctx),
                Command::Publish(manifest) => self.publish(*manifest, ctx),
            }
        }
        self.retire(ctx);
        self.show();
    }

    fn open(&self, open: OpenCheckpoints, ctx: &mut Context<Self>) {
        let store = self.links.open.clone();
        let asked = async move { store.send(open).await.unwrap_or(Err(CheckpointError::Closed)) };
        let told = |coordinator: &mut Self, opened, ctx: &mut Context<Self>| match opened {
            Ok(opened) => {
                let opened: crate::messages::checkpoint_store::Opened = opened;
                let version = opened.manifest.as_ref().map(|manifest| manifest.version.0);
                info!(?version, "newest checkpoint");
                coordinator.training.opened(opened)
            }
            Err(error) => coordinator.store_failed(&error, ctx),
        };
        self.spawn(asked, told, ctx);
    }

    /// Whether a finished run's version is still there: it may have been deleted, to be trained anew.
    fn confirm(&self, finished: Finished, ctx: &mut Context<Self>) {
        let (registry, published) = (self.links.find.clone(), &finished.published);
        let version = VersionRef::Number(published.version);
        let find = FindModel { model: published.model.clone(), version };
        let asked = async move { ask(&registry, find, ANSWER_MAX).await };
        self.spawn(
            asked,
            move |coordinator, found, ctx| match found {
                Err(error) if error.may_pass() => {
                    coordinator.hold_up(error.to_string(), ctx);
                    Vec::new()
                }
                found => {
                    let is_there = found.is_ok_and(|found| found.run == finished.run);
                    let (model, version) = (&finished.published.model, finished.published.version);
                    if is_there {
                        info!(%model, version, "this job is finished; --fresh trains it again");
                    }
                    coordinator.training.confirmed(is_there)
                }
            },
            ctx,
        );
    }

    fn store_failed(&mut self, error: &CheckpointError, ctx: &mut Context<Self>) -> Vec<Command> {
        if error.may_pass() {
            self.hold_up(error.to_string(), ctx);
        } else {
            self.training.fail(error.to_string());
        }
        Vec::new()
    }

    /// Asks again after a while, and says why.
    pub(super) fn hold_up(&mut self, cause: String, ctx: &mut Context<Self>) {
        if self.training.held_up(cause.clone()) {
            warn!(%cause, "trying again until it works");
        }
        let term = self.term;
        ctx.run_later(RETRY_AFTER, move |coordinator, ctx| {
            if coordinator.leads() && coordinator.term == term {
                let commands = coordinator.training.ask_store_again();
                coordinator.carry_out(commands, ctx);
            }
        });
    }

    fn restore(&self, restore: RestoreShard, ctx: &mut Context<Self>) {
        let (copy, view) = (restore.appointment.copy, restore.appointment.view);
        let Some(server) = of_copy(&self.links.restore, copy) else { return };
        // A checkpoint may take longer to read: then it is asked again, and says that it is at it.
        let asked = async move { ask(&server, restore, ANSWER_MAX).await };
        self.spawn(
            asked,
            move |coordinator, answer, _| {
                if let Err(error) = &answer
                    && !matches!(error, RestoreError::Link(_) | RestoreError::NotReady(_))
                {
                    warn!(%copy, %view, %error, "shard not restored");
                }
                coordinator.training.copy_answered(copy, view, &answer)
            },
            ctx,
        );
    }

    fn adopt(&self, adopt: AdoptView, ctx: &mut Context<Self>) {
        let (copy, view) = (adopt.appointment.copy, adopt.appointment.view);
        let Some(server) = of_copy(&self.links.adopt, copy) else { return };
        let asked = async move { ask(&server, adopt, ANSWER_MAX).await };
        let told = move |coordinator: &mut Self, answer, _: &mut Context<Self>| {
            coordinator.training.copy_answered(copy, view, &answer)
        };
        self.spawn(asked, told, ctx);
    }

    fn lease(&self, lease: LeaseSlots, ctx: &mut Context<Self>) {
        let (worker, view) = (lease.worker, lease.view);
        let Some(receiver) = self.links.lease.get(worker.0 as usize).cloned() else { return };
        let asked = async move { ask(&receiver, lease, ANSWER_MAX).await };
        let told = move |coordinator: &mut Self, answer, _: &mut Context<Self>| {
            coordinator.training.worker_answered(worker, view, &answer);
            Vec::new()
        };
        self.spawn(asked, told, ctx);
    }

    fn commit(&self, manifest: Manifest, ctx: &mut Context<Self>) {
        let store = self.links.commit.clone();
        let commit = CommitCheckpoint { manifest: manifest.clone() };
        let asked = async move { store.send(commit).await.unwrap_or(Err(CheckpointError::Closed)) };
        let told = move |coordinator: &mut Self, written, ctx: &mut Context<Self>| match written {
            Ok(()) => coordinator.training.committed(manifest),
            Err(error) => coordinator.commit_later(manifest, &error, ctx),
        };
        self.spawn(asked, told, ctx);
    }

    fn commit_later(
        &mut self,
        manifest: Manifest,
        error: &CheckpointError,
        ctx: &mut Context<Self>,
    ) -> Vec<Command> {
        if self.training.held_up(error.to_string()) {
            warn!(version = %manifest.version, %error, "checkpoint not committed, trying again");
        }
        let term = self.term;
        ctx.run_later(RETRY_AFTER, move |coordinator, ctx| {
            if coordinator.leads() && coordinator.term == term {
                let commands = coordinator.training.commit_again(manifest);
                coordinator.carry_out(commands, ctx);
            }
        });
        Vec::new()
    }

    fn publish(&self, manifest: Manifest, ctx: &mut Context<Self>) {
        let published = publish(self.links.clone(), manifest, self.own.started_unix_ms);
        let told = |coordinator: &mut Self, published, _: &mut Context<Self>| match published {
            Ok(published) => {
                coordinator.training.published(published);
                Vec::new()
            }
            Err(NotPublished::Checkpoint(error)) => {
                warn!(%error, "the last checkpoint can't be read any more");
                coordinator.training.last_checkpoint_lost()
            }
            Err(NotPublished::Refused(cause)) => {
                coordinator.training.fail(cause);
                Vec::new()
            }
        };
        self.spawn(published, told, ctx);
    }
}

fn of_copy<M>(links: &[Vec<Recipient<M>>], copy: ShardCopy) -> Option<Recipient<M>>
where
    M: actix::Message + Send,
    M::Result: Send,
{
    links.get(copy.server.0 as usize)?.get(copy.shard.0 as usize).cloned()
}
