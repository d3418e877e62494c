// SPDX-License-Identifier: Apache-2.0
#include "controlplane/backup/directory.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

namespace sluice::backup {
namespace {

// number_of() reads the number that the name of a backup begins with; 0: it has none.
std::uint64_t number_of(std::string_view name) {
  std::uint64_t n = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), n);
  if (error != std::errc{} || n > (1u << 30) || end == name.data() + name.size() || *end != '-')
    return 0;
  return n;
}

}  // namespace

result<directory> directory::read(const std::string& path) {
  directory out;
  out.path_ = path;
  std::error_code code;
  std::filesystem::directory_iterator files{path, code};
  for (; !code && files != std::filesystem::directory_iterator{}; files.increment(code)) {
    const std::string name = files->path().filename().string();
    out.last_number_ = std::max(out.last_number_, number_of(name));
    if (!name.ends_with(manifest_suffix)) continue;
    const std::string file = path + "/" + name;
    const auto text = read_file(file, max_manifest_bytes);
    if (!text) {
      std::error_code gone;
      // Removed meanwhile, as old ones are.
      if (!std::filesystem::exists(file, gone) && !gone) continue;
      out.problems_.push_back(text.error());
      continue;
    }
    auto about = parse_manifest(*text);
    if (!about)
      out.problems_.push_back(file + ": " + about.error());
    else if (about->name() + std::string{manifest_suffix} != name)
      out.problems_.push_back(file + ": is the manifest of " + about->name());
    else
      out.entries_.push_back({std::move(*about), store::sha256(*text)});
  }
  if (code) return tl::unexpected{path + ": cannot be read: " + code.message()};
  const auto number = [](const entry& e) { return e.about.number; };
  std::sort(out.entries_.begin(), out.entries_.end(),
            [&](const entry& a, const entry& b) { return number(a) < number(b); });
  std::sort(out.problems_.begin(), out.problems_.end());
  return out;
}

const entry* directory::find(std::string_view name) const noexcept {
  for (const entry& e : entries_)
    if (e.about.name() == name) return &e;
  return nullptr;
}

std::string misfit(const entry& parent, const entry& next) {
  const manifest& p = parent.about;
  const manifest& n = next.about;
  if (n.parent_sha256 != parent.manifest_sha256) return p.name() + " is not the one it builds on";
  if (p.lineage != n.lineage || p.number >= n.number || p.last + 1 != n.first ||
      p.chain != n.before)
    return "it does not continue " + p.name();
  return {};
}

result<std::vector<const entry*>> directory::chain_of(const entry& last) const {
  std::vector<const entry*> out{&last};
  while (out.back()->about.kind != backup_kind::full) {
    const entry& e = *out.back();
    const entry* parent = find(e.about.parent);
    const std::string who = file_of(e, manifest_suffix) + ": ";
    if (parent == nullptr)
      return tl::unexpected{who + e.about.parent + ", which it builds on, is missing"};
    if (const std::string why = misfit(*parent, e); !why.empty()) return tl::unexpected{who + why};
    out.push_back(parent);  // of a smaller number, so this ends
  }
  std::reverse(out.begin(), out.end());
  return out;
}

result<archive> directory::load(const entry& e) const {
  const std::string file = file_of(e, data_suffix);
  const auto fail = [&](const std::string& why) { return tl::unexpected{file + ": " + why}; };
  const manifest& m = e.about;
  const auto bytes = read_file(file, UINT64_MAX);
  if (!bytes) return tl::unexpected{bytes.error()};
  if (bytes->size() != m.bytes)
    return fail("has " + std::to_string(bytes->size()) + " bytes; its manifest says " +
                std::to_string(m.bytes));
  if (store::sha256(*bytes) != m.sha256) return fail("is damaged: its checksum does not match");
  auto data = parse_archive(*bytes);
  if (!data) return fail(data.error());
  const auto& r = data->revisions;
  if (r.size() != m.revisions() ||
      (!r.empty() && (r.front().number != m.first || r.back().number != m.last)))
    return fail("does not hold the revisions that its manifest says");
  digest at = m.before;
  for (const auto& record : r) {
    at = store::chain(at, record);
    if (at != record.chain_digest)
      return fail("revision " + std::to_string(record.number) +
                  " does not continue the one before it");
  }
  if (at != m.chain) return fail("does not end where its manifest says");
  return data;
}

}  // namespace sluice::backup
