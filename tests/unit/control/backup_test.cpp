// SPDX-License-Identifier: Apache-2.0
// Manifests and data of backups: written, read, and every flipped bit found; chains and what
// verify() says of them; a state file that is put together again.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>

#include "controlplane/backup/create.hpp"
#include "controlplane/backup/restore.hpp"
#include "controlplane/backup/time_text.hpp"
#include "controlplane/backup/verify.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"

namespace sluice::backup {
namespace {

namespace fs = std::filesystem;

model::desired_state state_of(unsigned n) {
  model::desired_state out;
  model::service s;
  s.name = "web";
  s.address = *parse_ip("192.0.2.1");
  s.port = {80, 80};
  s.backends.push_back({.address = *parse_ip("10.0.0.1"), .weight = n});
  out.services.push_back(s);
  return out;
}

class backup_test : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sluice-backup-XXXXXX").string();
    ASSERT_TRUE(mkdtemp(name.data()));
    directory_ = name;
    auto opened = store::state_store::open(path("state.db"));
    ASSERT_TRUE(opened) << opened.error();
    file_ = std::make_unique<store::state_store>(std::move(*opened));
  }
  void TearDown() override { fs::remove_all(directory_); }

  [[nodiscard]] std::string path(const std::string& name) const {
    return (directory_ / name).string();
  }
  void commit(unsigned n) {
    for (; n > 0; --n) ASSERT_TRUE(file_->commit(state_of(++weight_), "me", "why"));
  }
  result<created> make(backup_kind kind, const std::string& to = "b") {
    return create(
        {[&] { return file_->bounds(); },
         [&](auto first, auto n) { return file_->records(first, n); },
         [&] { return file_->load_verdicts(); }, [&] { return file_->load_side_tables(); }},
        {kind, path(to), "n1"});
  }

  fs::path directory_;
  std::unique_ptr<store::state_store> file_;
  unsigned weight_{0};
};

std::string read(const std::string& file) {
  return read_file(file, 1u << 30).value();
}
void write(const std::string& file, const std::string& text) {
  std::ofstream{file, std::ios::binary | std::ios::trunc} << text;
}

// rows_of() is what a query says, a line for each row, every column in it.
std::multiset<std::string> rows_of(sqlite3* db, const std::string& query) {
  std::multiset<std::string> out;
  const auto take = [](void* to, int columns, char** values, char**) {
    std::string row;
    for (int i = 0; i < columns; ++i) row += std::string{values[i] ? values[i] : "NULL"} + "|";
    static_cast<std::multiset<std::string>*>(to)->insert(row);
    return 0;
  };
  char* problem = nullptr;
  EXPECT_EQ(sqlite3_exec(db, query.c_str(), take, &out, &problem), SQLITE_OK) << problem;
  sqlite3_free(problem);
  return out;
}

// all_tables() is all that a file holds, whatever its schema.
std::map<std::string, std::multiset<std::string>> all_tables(const std::string& file) {
  sqlite3* db = nullptr;
  EXPECT_EQ(sqlite3_open_v2(file.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr), SQLITE_OK);
  std::map<std::string, std::multiset<std::string>> out;
  for (const std::string& row : rows_of(db, "SELECT name FROM sqlite_schema WHERE type='table'")) {
    const std::string table = row.substr(0, row.size() - 1);
    std::string columns;
    for (const std::string& column :
         rows_of(db, "SELECT name FROM pragma_table_info('" + table + "')"))
      columns +=
          (columns.empty() ? "" : ", ") + ("quote(" + column.substr(0, column.size() - 1) + ")");
    out[table] = rows_of(db, "SELECT " + columns + " FROM " + table);
  }
  sqlite3_close_v2(db);
  return out;
}

TEST_F(backup_test, every_table_of_a_state_file_comes_back) {
  const auto fill = [&](const std::string& body) {
    commit(3);
    ASSERT_TRUE(file_->save_verdicts({{"web", *parse_ip("10.0.0.1"), body == "new", {}}}));
    ASSERT_TRUE(file_->save_discovered({{"web", body}, {"gone", body == "new" ? "" : body}}));
    ASSERT_TRUE(file_->save_reports({{"web", body + " report"}}));
    ASSERT_TRUE(file_->remember("drain", body + "\n\"drained\""));
  };
  fill("old");
  ASSERT_TRUE(make(backup_kind::full));
  fill("new");
  ASSERT_TRUE(make(backup_kind::incremental));
  file_.reset();
  const auto d = directory::read(path("b")).value();
  const auto made = rebuild(d, {}, path("new.db"), "me");
  ASSERT_TRUE(made) << made.error();
  const auto before = all_tables(path("state.db"));
  auto after = all_tables(path("new.db"));
  ASSERT_GE(before.size(), 5u);
  for (const auto& [table, rows] : before) {
    EXPECT_FALSE(rows.empty()) << table << ": nothing puts anything in; do so in fill()";
    if (table == "facts") {
      // That the history begins at its beginning is said or not.
      ASSERT_EQ(after[table].erase("'anchor'|'" + std::string(64, '0') + "'|"), 1u);
    }
    EXPECT_EQ(after[table], rows) << table << " does not come back";
  }
  EXPECT_EQ(after.size(), before.size());
}

TEST(archive, of_the_format_before_is_read) {
  archive a;
  a.verdicts.push_back({"web", *parse_ip("10.0.0.1"), true, {}});
  std::string bytes = to_bytes(a);
  ASSERT_EQ(bytes[8], 2);
  bytes[8] = 1;
  EXPECT_EQ(parse_archive(bytes).value(), a);
  bytes[8] = 3;
  EXPECT_NE(parse_archive(bytes).error().find("another version"), std::string::npos);
}

TEST(archive, takes_texts_of_known_tables_alone) {
  archive a;
  a.side = {{"reports", {{"web", "x"}, {"", ""}}}, {"facts", {{"drain", "{}"}}}};
  EXPECT_EQ(parse_archive(to_bytes(a)).value(), a);
  a.side["revisions"]["1"] = "x";
  EXPECT_FALSE(parse_archive(to_bytes(a)));
}

TEST(time_text, is_read_and_written) {
  const std::pair<const char*, std::int64_t> rows[] = {
      {"1970-01-01T00:00:00Z", 0},
      {"2026-11-21T23:45:00.123Z", 1795304700123},
      {"2026-11-21 23:45:00Z", 1795304700000},
      {"2026-11-22T00:45:00+01:00", 1795304700000},
      {"2026-11-21T18:15:00.5-05:30", 1795304700500},
      {"2024-02-29T00:00:00.1239z", 1709164800123},
      {"9999-12-31T23:59:59.999Z", 253402300799999}};
  for (const auto& [text, ms] : rows) {
    EXPECT_EQ(parse_time(text), ms) << text;
    EXPECT_EQ(parse_time(format_time(ms)), ms) << text;
  }
  for (const char* wrong :
       {"", "now", "2026-11-21", "2026-11-21T23:45:00", "2026-11-21T23:45Z", "2026-13-01T00:00:00Z",
        "2025-02-29T00:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T23:60:00Z",
        "2026-11-21T23:45:00.Z", "2026-11-21T23:45:00Zx", "2026-11-21T23:45:00+1:00",
        "1969-12-31T23:59:59Z", "x026-11-21T23:45:00Z"})
    EXPECT_FALSE(parse_time(wrong)) << wrong;
}

TEST_F(backup_test, every_flipped_bit_is_found) {
  commit(3);
  ASSERT_TRUE(file_->save_verdicts({{"web", *parse_ip("10.0.0.1"), true, {}}}));
  ASSERT_TRUE(make(backup_kind::full));
  commit(2);
  ASSERT_TRUE(make(backup_kind::incremental));
  const auto whole = verify(path("b"));
  ASSERT_TRUE(whole) << whole.error();
  EXPECT_EQ(whole->backups, 2u);
  EXPECT_EQ(whole->revisions, 5u);
  EXPECT_TRUE(whole->problems.empty()) << whole->problems[0];
  std::size_t flips = 0;
  for (const char* name : {"b/000001-full.manifest", "b/000001-full.data",
                           "b/000002-incremental.manifest", "b/000002-incremental.data"}) {
    const std::string good = read(path(name));
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
      if (name[std::string_view{name}.size() - 1] == 't') {
        // The file is not needed to see that a manifest is damaged.
        EXPECT_FALSE(parse_manifest(bad)) << name << " bit " << bit;
      } else if (bit % 7 == 0) {
        write(path(name), bad);
        EXPECT_FALSE(verify(path("b"))->problems.empty()) << name << " bit " << bit;
      }
      ++flips;
    }
    // Cut off anywhere.
    for (std::size_t n = 0; n < good.size(); n += 13) {
      write(path(name), good.substr(0, n));
      EXPECT_FALSE(verify(path("b"))->problems.empty()) << name << " cut at " << n;
      EXPECT_FALSE(find_state(directory::read(path("b")).value(), {})) << name << " cut at " << n;
    }
    write(path(name), good);
  }
  EXPECT_TRUE(verify(path("b"))->problems.empty());
  RecordProperty("flips", static_cast<int>(flips));
}

TEST_F(backup_test, restores_every_revision_from_any_chain) {
  std::mt19937 rng{7};
  commit(120);
  ASSERT_TRUE(make(backup_kind::full));
  for (int i = 0; i < 12; ++i) {
    commit(1 + static_cast<unsigned>(rng() % 30));
    const auto kind = i == 5 ? backup_kind::full
                             : (rng() % 2 ? backup_kind::incremental : backup_kind::differential);
    const auto made = make(kind);
    ASSERT_TRUE(made) << made.error();
    EXPECT_TRUE(made->fresh);
  }
  const auto d = directory::read(path("b")).value();
  EXPECT_EQ(d.entries().size(), 13u);
  const auto found = verify(path("b")).value();
  EXPECT_TRUE(found.problems.empty()) << found.problems[0];
  for (unsigned n = 1; n <= weight_; ++n) {
    const auto got = find_state(d, {n, {}});
    ASSERT_TRUE(got) << got.error();
    ASSERT_EQ(got->revision, n);
    ASSERT_EQ(got->text, model::to_yaml(state_of(n)));
  }
  EXPECT_EQ(find_state(d, {})->revision, weight_);
  EXPECT_FALSE(find_state(d, {weight_ + 1, {}}));

  // A state file: the same history, byte for byte, and it goes on.
  const auto before = file_->records(1, SIZE_MAX).value();
  EXPECT_NE(rebuild(d, {}, path("state.db"), "me").error().find("is in use"), std::string::npos);
  file_.reset();
  const auto built = rebuild(d, {}, path("state.db"), "me");
  ASSERT_TRUE(built) << built.error();
  EXPECT_TRUE(fs::exists(built->kept));
  file_ = std::make_unique<store::state_store>(store::state_store::open(path("state.db")).value());
  EXPECT_EQ(file_->records(1, SIZE_MAX).value(), before);
  commit(1);
  EXPECT_TRUE(make(backup_kind::incremental)->fresh) << "backups go on, too";
  EXPECT_TRUE(verify(path("b"))->problems.empty());
}

TEST_F(backup_test, goes_on_after_old_revisions_are_forgotten) {
  file_.reset();
  file_ =
      std::make_unique<store::state_store>(store::state_store::open(path("state.db"), 150).value());
  commit(400);
  const auto full = make(backup_kind::full);
  ASSERT_TRUE(full) << full.error();
  EXPECT_GT(full->made.about.first, 1u);
  commit(50);
  ASSERT_TRUE(make(backup_kind::incremental));
  EXPECT_TRUE(verify(path("b"))->problems.empty());
  const auto d = directory::read(path("b")).value();
  EXPECT_EQ(find_state(d, {})->text, model::to_yaml(state_of(450)));
  EXPECT_FALSE(find_state(d, {full->made.about.first - 1, {}}));
  commit(400);
  const auto gap = make(backup_kind::incremental);
  ASSERT_FALSE(gap);
  EXPECT_NE(gap.error().find("are no longer in the state file; make a full backup first"),
            std::string::npos)
      << gap.error();
  file_.reset();
  ASSERT_TRUE(rebuild(d, {}, path("new.db"), "me"));
  EXPECT_EQ(store::state_store::open(path("new.db"))->load_latest().value()->state, state_of(450));
}

TEST_F(backup_test, copies_and_removes_whole_chains) {
  for (int chain = 0; chain < 4; ++chain) {
    commit(1);
    ASSERT_TRUE(make(backup_kind::full));
    commit(1);
    ASSERT_TRUE(make(backup_kind::incremental));
  }
  EXPECT_EQ(copy_missing(path("b"), path("c")), 8u);
  EXPECT_EQ(copy_missing(path("b"), path("c")), 0u);
  EXPECT_EQ(remove_old(path("b"), 2), 4u);
  EXPECT_EQ(remove_old(path("b"), 2), 0u);
  EXPECT_EQ(remove_old(path("b"), 9), 0u);
  for (const char* name : {"b", "c"}) EXPECT_TRUE(verify(path(name))->problems.empty()) << name;
  EXPECT_EQ(directory::read(path("b"))->entries().front().about.name(), "000005-full");
  // Numbers are not given out again, and drafts of a writer that was killed are cleared.
  write(path("b/000009-full.data.unfinished"), "x");
  EXPECT_EQ(make(backup_kind::full)->made.about.name(), "000010-full");
  EXPECT_FALSE(fs::exists(path("b/000009-full.data.unfinished")));
  EXPECT_FALSE(copy_missing(path("b"), path("b")));
}

}  // namespace
}  // namespace sluice::backup
