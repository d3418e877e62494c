// SPDX-License-Identifier: Apache-2.0
#include "controlplane/backup/create.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <system_error>

namespace sluice::backup {
namespace {

constexpr std::size_t records_at_once = 500;

std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

// remove_unfinished() clears what a writer that was killed has left. Under the lock.
void remove_unfinished(const directory& d) {
  std::error_code code;
  std::filesystem::directory_iterator files{d.path(), code};
  for (; !code && files != std::filesystem::directory_iterator{}; files.increment(code)) {
    const std::string name = files->path().filename().string();
    const bool draft =
        name.ends_with(std::string{manifest_suffix} + std::string{unfinished_suffix}) ||
        name.ends_with(std::string{data_suffix} + std::string{unfinished_suffix});
    if (draft) ::unlink(files->path().c_str());
  }
}

// base_for() returns what the new backup builds on: nothing for a full one.
result<const entry*> base_for(const directory& d, const create_options& o,
                              const store::history_bounds& now) {
  if (o.kind == backup_kind::full) return nullptr;
  const std::string kind{to_string(o.kind)};
  const entry* base = nullptr;
  for (const entry& e : d.entries())
    if (o.kind == backup_kind::incremental || e.about.kind == backup_kind::full) base = &e;
  const auto full_first = [&](const std::string& why) {
    return tl::unexpected{d.path() + ": " + why + "; make a full backup first"};
  };
  if (base == nullptr)
    return full_first("there is no backup that a " + kind + " one could build on");
  // A chain that is broken is not made longer.
  if (const auto chain = d.chain_of(*base); !chain) return full_first(chain.error());
  const manifest& m = base->about;
  if (m.lineage != now.lineage) return full_first(m.name() + " is of another state file");
  if (m.last > now.last)
    return full_first("the state file is older than " + m.name() + ": it ends at revision " +
                      std::to_string(now.last));
  if (m.last + 1 < now.first)
    return full_first("revisions " + std::to_string(m.last + 1) + " to " +
                      std::to_string(now.first - 1) + " are no longer in the state file");
  return base;
}

// continues() tells whether the history holds what a backup says of its last revision.
result<bool> continues(const source& from, const manifest& m, const store::history_bounds& now) {
  if (m.last < now.first || m.last == 0) return m.chain == now.anchor;
  const auto last = from.records(m.last, 1);
  if (!last) return tl::unexpected{last.error()};
  return last->size() == 1 && last->front().number == m.last &&
         last->front().chain_digest == m.chain;
}

// read_all() reads the revisions after `last`, up to the bounds.
result<std::vector<store::revision_record>> read_all(const source& from, revision_number last,
                                                     const store::history_bounds& now) {
  std::vector<store::revision_record> out;
  while (last < now.last) {
    auto some = from.records(last + 1, std::min<std::size_t>(records_at_once, now.last - last));
    if (!some) return tl::unexpected{some.error()};
    if (some->empty() || some->front().number != last + 1)
      return tl::unexpected{std::string{"old revisions were just removed; try again"}};
    last = some->back().number;
    std::move(some->begin(), some->end(), std::back_inserter(out));
  }
  return out;
}

result<void> write_backup(const directory& d, entry& e, const std::string& data) {
  const std::string text = to_text(e.about);
  e.manifest_sha256 = store::sha256(text);
  const std::string data_file = d.file_of(e, data_suffix);
  // The name of the data is on disk before a manifest says so.
  auto done = write_durably(data_file, data).and_then([&] { return sync_directory(d.path()); });
  if (done) {
    done = write_durably(d.file_of(e, manifest_suffix), text).and_then([&] {
      return sync_directory(d.path());
    });
  }
  if (!done) {
    ::unlink(d.file_of(e, manifest_suffix).c_str());
    ::unlink(data_file.c_str());
  }
  return done;
}

}  // namespace

result<created> create(const source& from, const create_options& o) {
  if (auto made = make_directory(o.to); !made) return tl::unexpected{made.error()};
  const auto lock = lock_directory(o.to);
  if (!lock) return tl::unexpected{lock.error()};
  const auto d = directory::read(o.to);
  if (!d) return tl::unexpected{d.error()};
  for (const entry& e : d->entries())
    if (e.about.node != o.node)
      return tl::unexpected{o.to + ": holds backups of node '" + e.about.node + "', and this is '" +
                            o.node + "'; each node needs a directory of its own"};
  remove_unfinished(*d);
  const auto now = from.bounds();
  if (!now) return tl::unexpected{now.error()};
  const auto base = base_for(*d, o, *now);
  if (!base) return tl::unexpected{base.error()};

  manifest m;
  m.number = d->last_number() + 1;
  m.kind = o.kind;
  m.node = o.node;
  m.lineage = now->lineage;
  m.before = now->anchor;
  m.first = now->first == 0 ? 1 : now->first;
  if (*base != nullptr) {
    m.parent = (*base)->about.name();
    m.parent_sha256 = (*base)->manifest_sha256;
    m.before = (*base)->about.chain;
    m.first = (*base)->about.last + 1;
    if (const auto same = continues(from, (*base)->about, *now); !same) {
      return tl::unexpected{same.error()};
    } else if (!*same) {
      return tl::unexpected{o.to + ": the history has forked since " + m.parent +
                            " (a state file that was restored?); make a full backup first"};
    }
    const entry& newest = d->entries().back();
    const manifest& n = newest.about;
    if (n.lineage == now->lineage && n.last == now->last && d->chain_of(newest))
      return created{newest, false};
  }
  auto revisions = read_all(from, m.first - 1, *now);
  if (!revisions) return tl::unexpected{revisions.error()};
  m.last = m.first - 1;
  m.chain = m.before;
  if (!revisions->empty()) {
    m.last = revisions->back().number;
    m.first_ms = revisions->front().time_ms;
    m.last_ms = revisions->back().time_ms;
    m.chain = revisions->back().chain_digest;
  }
  auto verdicts = from.verdicts();
  if (!verdicts) return tl::unexpected{verdicts.error()};
  auto side = from.side_tables();
  if (!side) return tl::unexpected{side.error()};
  const std::string data =
      to_bytes({std::move(*revisions), std::move(*verdicts), std::move(*side)});
  m.bytes = data.size();
  m.sha256 = store::sha256(data);
  m.created_ms = now_ms();
  created out{{std::move(m), {}}, true};
  if (auto written = write_backup(*d, out.made, data); !written)
    return tl::unexpected{written.error()};
  return out;
}

result<std::size_t> copy_missing(const std::string& from, const std::string& to) {
  if (auto made = make_directory(to); !made) return tl::unexpected{made.error()};
  std::error_code code;
  if (std::filesystem::equivalent(from, to, code))
    return tl::unexpected{to + ": is the directory of the backups itself"};
  const auto lock = lock_directory(to);
  if (!lock) return tl::unexpected{lock.error()};
  const auto here = directory::read(from);
  if (!here) return tl::unexpected{here.error()};
  const auto there = directory::read(to);
  if (!there) return tl::unexpected{there.error()};
  remove_unfinished(*there);
  std::size_t copied = 0;
  for (const entry& e : here->entries()) {
    const entry* same = there->find(e.about.name());
    if (same != nullptr && same->manifest_sha256 == e.manifest_sha256) continue;
    if (same != nullptr)
      return tl::unexpected{there->file_of(e, manifest_suffix) +
                            ": is another backup of the same name; expected copies of " + from};
    // Damage is not copied.
    if (const auto data = here->load(e); !data) return tl::unexpected{data.error()};
    const auto bytes = read_file(here->file_of(e, data_suffix), UINT64_MAX);
    if (!bytes) return tl::unexpected{bytes.error()};
    if (auto gone = remove_file(there->file_of(e, data_suffix)); !gone)
      return tl::unexpected{gone.error()};
    entry copy = e;
    if (auto done = write_backup(*there, copy, *bytes); !done) return tl::unexpected{done.error()};
    ++copied;
  }
  return copied;
}

result<std::size_t> remove_old(const std::string& path, std::size_t keep) {
  const auto lock = lock_directory(path);
  if (!lock) return tl::unexpected{lock.error()};
  const auto d = directory::read(path);
  if (!d) return tl::unexpected{d.error()};
  std::size_t fulls = 0;
  std::uint64_t first_kept = 0;
  for (auto e = d->entries().rbegin(); e != d->entries().rend() && fulls < keep; ++e) {
    if (e->about.kind != backup_kind::full) continue;
    ++fulls;
    first_kept = e->about.number;
  }
  if (fulls < keep) return 0;
  // The newest go first: what is left is whole, whenever this is interrupted. What builds on a
  // kept full backup is newer than it.
  std::size_t removed = 0;
  for (auto e = d->entries().rbegin(); e != d->entries().rend(); ++e) {
    if (e->about.number >= first_kept) continue;
    for (const std::string_view suffix : {manifest_suffix, data_suffix})
      if (auto gone = remove_file(d->file_of(*e, suffix)); !gone)
        return tl::unexpected{gone.error()};
    ++removed;
  }
  if (auto synced = sync_directory(path); !synced) return tl::unexpected{synced.error()};
  return removed;
}

}  // namespace sluice::backup
