// SPDX-License-Identifier: Apache-2.0
#include "controlplane/store/store.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "controlplane/model/text.hpp"
#include "controlplane/store/sqlite.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/fnv.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::store {
namespace {

namespace fs = std::filesystem;

class state_store_test : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sluice-store-XXXXXX").string();
    ASSERT_TRUE(mkdtemp(name.data()));
    directory_ = name;
  }
  void TearDown() override { fs::remove_all(directory_); }

  [[nodiscard]] std::string path() const { return (directory_ / "state.db").string(); }
  // open_error() returns why the file cannot be opened.
  [[nodiscard]] std::string open_error() const {
    const auto s = state_store::open(path());
    return s ? "opened" : s.error();
  }

  fs::path directory_;
};

// numbered() is a state that tells which one it is, over several pages of the file.
model::desired_state numbered(unsigned n) {
  model::desired_state out;
  for (unsigned i = 0; i < 20; ++i) {
    model::service s;
    s.name = "s" + std::to_string(i);
    s.address = ip_address::v4({192, 0, 2, static_cast<std::uint8_t>(i + 1)});
    s.port = {80, 80};
    for (unsigned k = 0; k < 20; ++k)
      s.backends.push_back({.address = ip_address::v4({10, 0, 0, static_cast<std::uint8_t>(k + 1)}),
                            .weight = n % 65536});
    out.services.push_back(s);
  }
  model::normalise(out);
  return out;
}

TEST_F(state_store_test, keeps_revisions) {
  {
    auto s = state_store::open(path());
    ASSERT_TRUE(s) << s.error();
    EXPECT_FALSE(s->load_latest().value());
    EXPECT_TRUE(s->history(10)->empty());
    EXPECT_EQ(s->commit({}, "", ""), 1u);
    EXPECT_EQ(s->commit(numbered(5), "root", "five"), 2u);
    EXPECT_EQ(s->commit(numbered(6), "röot", "six; 'quoted' -- \n"), 3u);
  }
  auto s = state_store::open(path());
  ASSERT_TRUE(s) << s.error();
  const auto latest = s->load_latest().value();
  ASSERT_TRUE(latest);
  EXPECT_EQ(latest->info.number, 3u);
  EXPECT_EQ(latest->info.author, "röot");
  EXPECT_EQ(latest->info.reason, "six; 'quoted' -- \n");
  EXPECT_EQ(latest->state, numbered(6));
  const auto age = std::chrono::system_clock::now() - latest->info.time;
  EXPECT_LT(age, std::chrono::minutes{1});
  EXPECT_EQ(s->get(2).value()->state, numbered(5));
  EXPECT_EQ(s->get(1).value()->state, model::desired_state{});
  EXPECT_FALSE(s->get(0).value());
  EXPECT_FALSE(s->get(4).value());
  EXPECT_FALSE(s->get(UINT64_MAX).value());
  const auto history = s->history(2).value();
  ASSERT_EQ(history.size(), 2u);
  EXPECT_EQ(history[0].number, 3u);
  EXPECT_EQ(history[1].number, 2u);
  EXPECT_EQ(s->history(SIZE_MAX)->size(), 3u);
  EXPECT_EQ(fs::status(path()).permissions() & fs::perms::others_all, fs::perms::none);
}

TEST_F(state_store_test, refuses_a_state_that_could_not_be_read_back) {
  auto s = state_store::open(path());
  ASSERT_TRUE(s) << s.error();
  auto state = numbered(1);
  state.services[0].name = "Bad Name";
  const auto committed = s->commit(state, "", "");
  ASSERT_FALSE(committed);
  EXPECT_EQ(committed.error(), path() +
                                   ": not committed: services[Bad Name].name: 'Bad Name' is not a "
                                   "service name");
  EXPECT_FALSE(s->load_latest().value());
}

TEST_F(state_store_test, keeps_verdicts) {
  using std::chrono::milliseconds;
  const std::chrono::system_clock::time_point t{milliseconds{1'700'000'000'123}};
  const ip_address a = *parse_ip("10.0.0.1");
  const ip_address b = *parse_ip("2001:db8::1");
  {
    auto s = state_store::open(path());
    ASSERT_TRUE(s) << s.error();
    ASSERT_TRUE(s->save_verdicts({}));
    ASSERT_TRUE(s->save_verdicts({{"s1", a, true, t}, {"s1", b, true, t}, {"gone", a, true, t}}));
    ASSERT_TRUE(s->save_verdicts({{"s1", a, false, t + milliseconds{5}}}));
  }
  auto s = state_store::open(path());
  ASSERT_TRUE(s) << s.error();
  const std::vector<verdict> all{
      {"gone", a, true, t}, {"s1", a, false, t + milliseconds{5}}, {"s1", b, true, t}};
  EXPECT_EQ(s->load_verdicts(), all);
  ASSERT_TRUE(s->forget_verdicts_except(numbered(1)));
  const std::vector<verdict> left{{"s1", a, false, t + milliseconds{5}}};
  EXPECT_EQ(s->load_verdicts(), left);
}

TEST_F(state_store_test, is_open_once) {
  auto first = state_store::open(path());
  ASSERT_TRUE(first) << first.error();
  EXPECT_EQ(open_error(), path() + ": is in use by another process; one control plane per file");
  { const auto gone = std::move(*first); }
  EXPECT_EQ(open_error(), "opened");
}

TEST_F(state_store_test, refuses_what_is_not_its_own) {
  EXPECT_EQ(state_store::open("/nonexistent/state.db").error(),
            "/nonexistent/state.db: cannot be opened: No such file or directory");
  std::ofstream{path()} << "services: [] # this is no database, but long enough to look like one; "
                           "SQLite reads one hundred bytes of header\n";
  EXPECT_EQ(open_error(),
            path() +
                ": the state file is damaged (file is not a database); move it away and restore a "
                "backup (sluice restore), or apply services.yaml again");
  fs::remove(path());
  {
    std::ofstream{path()};
    database other;
    ASSERT_TRUE(other.open(path()) && other.run("CREATE TABLE t (x)"));
  }
  EXPECT_EQ(open_error(), path() +
                              ": is an SQLite file of something else; expected a state file of "
                              "Sluice, or none");
}

TEST_F(state_store_test, refuses_a_newer_file) {
  ASSERT_TRUE(state_store::open(path()));
  {
    database db;
    ASSERT_TRUE(db.open(path()) && db.run("PRAGMA user_version=3"));
  }
  EXPECT_EQ(open_error(), path() +
                              ": was written by a newer version (schema 3; this one knows up to "
                              "2); use that version, or another file");
}

TEST_F(state_store_test, finds_damage) {
  {
    auto s = state_store::open(path());
    ASSERT_TRUE(s) << s.error();
    for (unsigned i = 0; i < 300; ++i) ASSERT_TRUE(s->commit(numbered(i), "", ""));
  }
  const auto size = fs::file_size(path());
  ASSERT_GT(size, 30'000u);
  {
    // A page in the middle, gone.
    std::fstream f{path(), std::ios::in | std::ios::out | std::ios::binary};
    f.seekp(static_cast<std::streamoff>(4096));
    f << std::string(4096, '\xa5');
  }
  EXPECT_NE(open_error().find(": the state file is damaged ("), std::string::npos) << open_error();

  // One bit of a packed text: SQLite does not see that, the checksum does.
  fs::remove(path());
  {
    auto s = state_store::open(path());
    ASSERT_TRUE(s) << s.error();
    ASSERT_TRUE(s->commit(numbered(7), "", ""));
  }
  {
    database db;
    ASSERT_TRUE(db.open(path()) && db.run("UPDATE revisions SET text_digest = zeroblob(32)"));
  }
  auto s = state_store::open(path());
  ASSERT_TRUE(s) << s.error();
  EXPECT_EQ(s->load_latest().error(),
            path() + " revision 1: its checksum does not match; the state file is damaged");
  EXPECT_FALSE(s->commit(numbered(8), "", "")) << "nothing is built on what is damaged";
}

TEST_F(state_store_test, packs_revisions_and_reads_any_of_them) {
  constexpr unsigned n = 350;
  std::size_t text_bytes = 0;
  {
    auto s = state_store::open(path());
    ASSERT_TRUE(s) << s.error();
    for (unsigned i = 1; i <= n; ++i) {
      // Opened again in between: a delta's base is read back from the file.
      if (i % 60 == 0) {
        { const auto gone = std::move(*s); }
        s = state_store::open(path());
        ASSERT_TRUE(s) << s.error();
      }
      text_bytes += model::to_yaml(numbered(i)).size();
      ASSERT_EQ(s->commit(numbered(i), "a", "", i), i);
    }
    EXPECT_EQ(s->bounds()->first, 1u);
    EXPECT_EQ(s->bounds()->last, n);
  }
  auto s = state_store::open(path());
  ASSERT_TRUE(s) << s.error();
  std::set<revision_number> keyframes;
  digest at{};
  text_reader reader;
  const auto records = s->records(1, SIZE_MAX).value();
  ASSERT_EQ(records.size(), n);
  std::size_t packed = 0;
  for (const auto& r : records) {
    const auto text = reader.next(r);
    ASSERT_TRUE(text) << text.error();
    EXPECT_EQ(*text, model::to_yaml(numbered(static_cast<unsigned>(r.number))));
    at = chain(at, r);
    EXPECT_EQ(r.chain_digest, at);
    EXPECT_EQ(r.changes, r.number);
    keyframes.insert(r.keyframe);
    packed += r.body.size();
  }
  EXPECT_GE(keyframes.size(), n / 100);
  EXPECT_LT(packed * 20, text_bytes) << "texts are packed";
  for (const unsigned i : {1u, 99u, 100u, 101u, 150u, n})
    EXPECT_EQ(s->get(i).value()->state, numbered(i)) << i;
  EXPECT_EQ(s->load_latest().value()->state, numbered(n));
}

TEST_F(state_store_test, forgets_old_revisions) {
  const auto open = [&] { return state_store::open(path(), 150); };
  auto s = open();
  ASSERT_TRUE(s) << s.error();
  for (unsigned i = 1; i <= 600; ++i) ASSERT_TRUE(s->commit(numbered(i), "", ""));
  const auto b = s->bounds().value();
  EXPECT_EQ(b.last, 600u);
  EXPECT_GT(b.first, 300u);
  EXPECT_LE(b.first, 451u);
  EXPECT_FALSE(s->get(b.first - 1).value());
  EXPECT_EQ(s->get(b.first).value()->state, numbered(static_cast<unsigned>(b.first)));
  const auto first = s->records(b.first, 1)->front();
  EXPECT_EQ(first.keyframe, first.number);
  EXPECT_EQ(chain(b.anchor, first), first.chain_digest) << "the chain goes on from the anchor";
  const auto size = fs::file_size(path());
  for (unsigned i = 601; i <= 900; ++i) ASSERT_TRUE(s->commit(numbered(i), "", ""));
  { const auto gone = std::move(*s); }
  EXPECT_LT(fs::file_size(path()), size * 2) << "room is used again";
  EXPECT_EQ(open()->load_latest().value()->state, numbered(900));
}

// What the version before wrote: the whole text of each revision.
void write_schema_1(const std::string& path, unsigned revisions, bool damaged) {
  std::ofstream{path};
  database db;
  ASSERT_TRUE(db.open(path));
  ASSERT_TRUE(db.run(
      "PRAGMA application_id=1397511491; PRAGMA user_version=1;"
      "CREATE TABLE revisions (number INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, author TEXT "
      "NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;"
      "CREATE TABLE verdicts (service TEXT NOT NULL, backend TEXT NOT NULL, healthy INTEGER NOT "
      "NULL, since_ms INTEGER NOT NULL, PRIMARY KEY (service, backend)) STRICT, WITHOUT ROWID;"
      "INSERT INTO verdicts VALUES ('s1', '10.0.0.1', 1, 5);"));
  for (unsigned i = 1; i <= revisions; ++i) {
    const std::string text = model::to_yaml(numbered(i));
    fnv1a h;
    h.add(text);
    statement put{db, "INSERT INTO revisions VALUES (?1, ?2, 'root', 'old', ?3, ?4)"};
    put.bind(1, std::int64_t{i});
    put.bind(2, std::int64_t{1000 + i});
    put.bind(3, std::string_view{text});
    put.bind(4, static_cast<std::int64_t>(h.value()) + (damaged && i == revisions ? 1 : 0));
    ASSERT_EQ(put.step(), SQLITE_DONE);
  }
}

TEST_F(state_store_test, upgrades_a_file_of_the_version_before) {
  write_schema_1(path(), 250, false);
  {
    auto s = state_store::open(path());
    ASSERT_TRUE(s) << s.error();
    EXPECT_EQ(s->load_verdicts()->size(), 1u);
    EXPECT_EQ(s->get(1).value()->state, numbered(1));
    const auto latest = s->load_latest().value();
    EXPECT_EQ(latest->state, numbered(250));
    EXPECT_EQ(latest->info.author, "root");
    EXPECT_EQ(latest->info.reason, "old");
    EXPECT_EQ(latest->info.time.time_since_epoch(), std::chrono::milliseconds{1250});
    EXPECT_FALSE(latest->info.changes);
    EXPECT_EQ(s->commit(numbered(251), "", ""), 251u);
  }
  EXPECT_EQ(state_store::open(path())->get(251).value()->state, numbered(251));

  // One that is damaged stays as it is, for somebody to look at.
  fs::remove(path());
  write_schema_1(path(), 3, true);
  EXPECT_EQ(open_error(),
            path() + " revision 3: its checksum does not match; the state file is damaged");
  database db;
  ASSERT_TRUE(db.open(path()));
  EXPECT_EQ(db.number("PRAGMA user_version"), 1);
  EXPECT_EQ(db.number("SELECT count(*) FROM revisions"), 3);
}

TEST(record, packing_is_bounded_and_undone) {
  model::desired_state state = numbered(1);
  std::mt19937 weights{2};
  for (auto& service : state.services)
    for (auto& b : service.backends) b.weight = static_cast<std::uint32_t>(weights() % 1000);
  const std::string base = model::to_yaml(state);
  state.services[7].backends[3].weight = 1001;
  const std::string text = model::to_yaml(state);
  for (const std::string_view b : {std::string_view{}, std::string_view{base}}) {
    const auto body = pack(text, b);
    ASSERT_TRUE(body) << body.error();
    EXPECT_EQ(unpack(*body, b), text);
    EXPECT_FALSE(unpack(body->substr(0, body->size() - 1), b));
    EXPECT_FALSE(unpack(body->substr(1), b));
  }
  EXPECT_LT(pack(text, base)->size() * 10, pack(text, {})->size()) << "only what changed";
  EXPECT_EQ(unpack(pack("", {}).value(), {}), "");
  EXPECT_FALSE(unpack("", {}));
  EXPECT_FALSE(unpack("no such thing", {}));
  const auto bomb = pack(std::string(yaml::max_bytes + 1, ' '), {});
  ASSERT_TRUE(bomb);
  EXPECT_EQ(unpack(*bomb, {}).error(), "would have more than 16 MiB of text");
  // The largest text, with another one as large: the dictionary reaches over both.
  std::string large(yaml::max_bytes, ' ');
  std::mt19937 rng{1};
  for (char& c : large) c = static_cast<char>('a' + rng() % 26);
  std::string changed = large;
  changed[100] = 'A';
  changed[large.size() - 100] = 'A';
  const auto delta = pack(changed, large);
  ASSERT_TRUE(delta);
  EXPECT_LT(delta->size(), 100'000u);
  EXPECT_EQ(unpack(*delta, large), changed);
}

// A child commits as fast as it can and is killed at a random point. What comes back is
// a whole state, no older than the last one that commit() had returned for.
TEST_F(state_store_test, survives_kill_9) {
  std::mt19937 rng{std::random_device{}()};
  revision_number before = 0;
  unsigned commits = 0;
  for (int round = 0; round < SLUICE_KILLS; ++round) {
    int told[2];
    ASSERT_EQ(pipe(told), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(told[0]);
      auto s = state_store::open(path());
      if (!s) _exit(2);
      for (unsigned n = 1;; ++n) {
        // The weight carries the number, so that a mix of two states would show.
        const auto number = s->commit(numbered(static_cast<unsigned>(before) + n), "child", "");
        if (!number || *number != before + n) _exit(3);
        if (write(told[1], &*number, sizeof *number) != sizeof *number) _exit(4);
        if (n % 3 == 0 && !s->save_verdicts({{"s1", *parse_ip("10.0.0.1"), n % 2 == 0, {}}}))
          _exit(5);
      }
    }
    close(told[1]);
    // The first word says that it is at work; it dies at any point from here on.
    revision_number last = before;
    revision_number number = 0;
    EXPECT_EQ(read(told[0], &number, sizeof number), static_cast<ssize_t>(sizeof number));
    last = number;
    usleep(static_cast<useconds_t>(rng() % 10'000));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself, exit " << WEXITSTATUS(status);
    while (read(told[0], &number, sizeof number) == static_cast<ssize_t>(sizeof number))
      last = number;
    close(told[0]);

    auto s = state_store::open(path());
    ASSERT_TRUE(s) << s.error();
    const auto latest = s->load_latest();
    ASSERT_TRUE(latest) << latest.error();
    ASSERT_TRUE(*latest);
    const revision_number now = (*latest)->info.number;
    EXPECT_GE(now, last) << "a committed revision is lost";
    EXPECT_LE(now, last + 1) << "at most the one that was on its way";
    EXPECT_EQ((*latest)->state, numbered(static_cast<unsigned>(now)));
    EXPECT_EQ(s->history(SIZE_MAX)->size(), now) << "no gaps";
    EXPECT_TRUE(s->load_verdicts());
    commits += static_cast<unsigned>(now - before);
    before = now;
  }
  RecordProperty("commits", static_cast<int>(commits));
  std::printf("survived %d kills over %u commits\n", SLUICE_KILLS, commits);
}

}  // namespace
}  // namespace sluice::store
