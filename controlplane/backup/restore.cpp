// SPDX-License-Identifier: Apache-2.0
#include "controlplane/backup/restore.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <system_error>
#include <utility>

#include "controlplane/backup/time_text.hpp"
#include "controlplane/config/config.hpp"
#include "controlplane/store/store.hpp"

namespace sluice::backup {
namespace {

// whole_chain: all that a backup and those below it hold.
struct whole_chain {
  std::vector<store::revision_record> revisions;
  std::vector<store::verdict> verdicts;
  store::state_store::side_tables side;
  const entry* full{nullptr};
  std::size_t backups{0};
};

result<whole_chain> read_chain(const directory& d, const entry& last) {
  const auto chain = d.chain_of(last);
  if (!chain) return tl::unexpected{chain.error()};
  whole_chain out;
  out.full = chain->front();
  for (const entry* e : *chain) {
    auto data = d.load(*e);
    if (!data) return tl::unexpected{data.error()};
    std::move(data->revisions.begin(), data->revisions.end(), std::back_inserter(out.revisions));
    out.verdicts = std::move(data->verdicts);
    out.side = std::move(data->side);
    ++out.backups;
  }
  return out;
}

// choose() is the position of the target among revisions; nothing: it is not there.
std::optional<std::size_t> choose(const whole_chain& c, const target& t) {
  const auto& r = c.revisions;
  if (r.empty()) return std::nullopt;
  if (t.revision) {
    if (*t.revision < r.front().number || *t.revision > r.back().number) return std::nullopt;
    return *t.revision - r.front().number;
  }
  if (t.at_ms) {
    for (std::size_t i = r.size(); i-- > 0;)
      if (r[i].time_ms <= *t.at_ms) return i;
    return std::nullopt;
  }
  return r.size() - 1;
}

// may_hold() tells by the manifests whether reading a chain is worth while.
bool may_hold(const directory& d, const entry& e, const target& t) {
  if (t.revision && *t.revision > e.about.last) return false;
  const auto chain = d.chain_of(e);
  if (!chain) return true;  // reading it says what is wrong
  const manifest& full = chain->front()->about;
  if (t.revision) return *t.revision >= full.first;
  return !t.at_ms || full.first_ms <= *t.at_ms;
}

result<std::string> text_of(const whole_chain& c, std::size_t at) {
  std::size_t i = at;
  while (i > 0 && c.revisions[i].keyframe != c.revisions[i].number) --i;
  store::text_reader reader;
  std::string out;
  for (; i <= at; ++i) {
    const auto text = reader.next(c.revisions[i]);
    if (!text) return tl::unexpected{text.error()};
    if (i == at) out = *text;
  }
  return out;
}

std::string shown(const target& t) {
  if (t.revision) return "revision " + std::to_string(*t.revision);
  if (t.at_ms) return "a revision of " + format_time(*t.at_ms) + " or before";
  return "a revision";
}

// attempt() is one backup as the end of the chain to restore from.
result<std::optional<std::pair<found_state, whole_chain>>> attempt(const directory& d,
                                                                   const entry& e,
                                                                   const target& t) {
  auto chain = read_chain(d, e);
  if (!chain) return tl::unexpected{chain.error()};
  const auto at = choose(*chain, t);
  if (!at) return std::nullopt;
  auto text = text_of(*chain, *at);
  if (!text) return tl::unexpected{d.file_of(e, data_suffix) + ": " + text.error()};
  const auto& r = chain->revisions[*at];
  found_state out{std::move(*text), r.number,       r.time_ms,      e.about.last,
                  e.about.node,     e.about.name(), chain->backups, {}};
  return std::pair{std::move(out), std::move(*chain)};
}

std::string hint(const directory& d, std::size_t before) {
  for (std::size_t i = before; i-- > 0;)
    if (const auto older = attempt(d, d.entries()[i], {}); older && *older)
      return "; the newest backup that is whole is " + d.entries()[i].about.name() +
             ": restore --revision " + std::to_string((*older)->first.revision);
  return "; no older backup is whole";
}

// find() looks for the target; with `longest` in the newest chain that holds it, otherwise where
// least has to be read.
result<std::pair<found_state, whole_chain>> find(const directory& d, const target& t,
                                                 bool longest) {
  std::vector<std::string> notes;
  const auto& all = d.entries();
  const bool newest = !t.revision && !t.at_ms;
  // One that cannot be read might be the newest.
  if (newest && !d.problems().empty())
    return tl::unexpected{d.problems().front() + hint(d, all.size())};
  if (all.empty() && d.problems().empty())
    return tl::unexpected{d.path() + ": there are no backups in it"};
  notes = d.problems();
  for (std::size_t i = all.size(); i-- > 0;) {
    if (!may_hold(d, all[i], t)) continue;
    if (!longest && t.revision && all[i].about.kind != backup_kind::full &&
        *t.revision < all[i].about.first)
      continue;  // its parent holds it, too
    auto got = attempt(d, all[i], t);
    if (got && *got) {
      (*got)->first.notes = std::move(notes);
      return std::move(**got);
    }
    if (newest)
      return tl::unexpected{got ? d.path() + ": " + all[i].about.name() + " holds no revision"
                                : got.error() + hint(d, i)};
    if (!got) notes.push_back(got.error());
  }
  std::string why = d.path() + ": no backup that is whole holds " + shown(t);
  for (const std::string& n : notes) why += "\n" + n;
  return tl::unexpected{std::move(why)};
}

// keep_aside() moves a state file, and what belongs to it, to another name.
result<std::string> keep_aside(const std::string& file) {
  struct stat st {};
  if (::lstat(file.c_str(), &st) != 0) return std::string{};
  std::string name;
  const auto stamp = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  for (int n = 0; n < 1000; ++n) {
    name = file + ".before-restore-" + std::to_string(stamp.count()) +
           (n == 0 ? "" : "." + std::to_string(n));
    if (::link(file.c_str(), name.c_str()) == 0) break;
    if (errno != EEXIST)
      return tl::unexpected{name + ": cannot be made: " + std::generic_category().message(errno)};
  }
  // What a control plane that was killed has left belongs to the old file alone.
  for (const char* suffix : {"-wal", "-shm"})
    if (::rename((file + suffix).c_str(), (name + suffix).c_str()) != 0 && errno != ENOENT)
      return tl::unexpected{file + suffix +
                            ": cannot be moved: " + std::generic_category().message(errno)};
  return name;
}

// in_use() says whether a control plane has the file open; what is damaged is not in use.
std::string in_use(const std::string& file) {
  struct stat st {};
  if (::stat(file.c_str(), &st) != 0) return {};
  const auto old = store::state_store::open(file);
  if (!old && old.error().find("is in use by another process") != std::string::npos)
    return old.error();
  return {};
}

void remove_draft(const std::string& draft) {
  for (const char* suffix : {"", "-wal", "-shm"}) ::unlink((draft + suffix).c_str());
}

result<void> write_draft(const std::string& draft, const found_state& found,
                         const whole_chain& chain, const std::string& author) {
  auto file = store::state_store::import(
      draft, {chain.full->about.lineage, 0, 0, chain.full->about.before}, chain.revisions);
  if (!file) return tl::unexpected{file.error()};
  if (auto saved = file->save_verdicts(chain.verdicts); !saved) return saved;
  if (auto saved = file->save_side_tables(chain.side); !saved) return saved;
  if (found.revision == found.newest) return {};
  const auto old = file->get(found.revision);
  if (!old) return tl::unexpected{old.error()};
  if (!*old)
    return tl::unexpected{draft + ": revision " + std::to_string(found.revision) +
                          " did not come back"};
  const auto number =
      file->commit((*old)->state, author, "restored revision " + std::to_string(found.revision));
  if (!number) return tl::unexpected{number.error()};
  return {};
}

}  // namespace

result<found_state> find_state(const directory& d, const target& t) {
  return find(d, t, false).map([](auto&& got) { return std::move(got.first); });
}

result<rebuilt> rebuild(const directory& d, const target& t, const std::string& state_file,
                        const std::string& author) {
  auto got = find(d, t, true);
  if (!got) return tl::unexpected{got.error()};
  auto& [found, chain] = *got;
  if (const std::string busy = in_use(state_file); !busy.empty()) return tl::unexpected{busy};
  const std::string draft = state_file + ".restored";
  remove_draft(draft);
  if (auto written = write_draft(draft, found, chain, author); !written) {
    remove_draft(draft);
    return tl::unexpected{written.error()};
  }
  rebuilt out;
  out.revisions = chain.revisions.size() + (found.revision == found.newest ? 0 : 1);
  auto kept = keep_aside(state_file);
  if (!kept) {
    remove_draft(draft);
    return tl::unexpected{kept.error()};
  }
  out.kept = std::move(*kept);
  // The last connection has closed: all of it is in the file itself.
  if (::rename(draft.c_str(), state_file.c_str()) != 0) {
    const int why = errno;
    remove_draft(draft);
    return tl::unexpected{state_file +
                          ": cannot be replaced: " + std::generic_category().message(why)};
  }
  const auto slash = state_file.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : state_file.substr(0, slash + 1);
  if (auto synced = sync_directory(folder); !synced) return tl::unexpected{synced.error()};
  out.state = std::move(found);
  return out;
}

}  // namespace sluice::backup
