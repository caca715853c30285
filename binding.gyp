{
  'variables': { 'sanitize%': 0 },
  'targets': [
    {
      'target_name': 'cowlab',
      'dependencies': ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"],
      'defines': ['NAPI_VERSION=8', '_GNU_SOURCE'],
      'conditions': [
        ["OS=='linux'", {
          # A forked child must not be the one that looks up a symbol.
          'ldflags': ['-Wl,-z,now'],
          'sources': [
            'native/core/access.cc',
            'native/core/child.cc',
            'native/core/command_loop.cc',
            'native/core/commit_counter.cc',
            'native/core/pagemap.cc',
            'native/core/probes.cc',
            'native/core/process.cc',
            'native/core/region.cc',
            'native/core/restorer.cc',
            'native/core/restrict.cc',
            'native/core/robust_lock.cc',
            'native/core/sharing.cc',
            'native/core/sharing_commands.cc',
            'native/core/smaps.cc',
            'native/core/spawn.cc',
            'native/core/stats.cc',
            'native/core/swap.cc',
            'native/core/vma.cc',
            'native/core/write_mark.cc',
            'native/binding/addon.cc',
            'native/binding/arguments.cc',
            'native/binding/mapping.cc',
            'native/binding/processes.cc',
            'native/binding/programs.cc',
            'native/binding/readers.cc',
            'native/binding/restorer.cc',
            'native/binding/write_mark.cc',
          ],
        }, {
          # Elsewhere the addon loads and offers nothing: the model works, real calls say why they cannot.
          'sources': ['native/binding/elsewhere.cc'],
        }],
        ["sanitize==1", {
          'defines': ['COWLAB_SANITIZE'],
          'cflags': ['-fsanitize=address,undefined', '-fno-omit-frame-pointer', '-fno-sanitize-recover=undefined', '-g'],
          'ldflags': ['-fsanitize=address,undefined'],
        }],
      ],
      'cflags!': ['-Wno-unused-parameter'],
      'cflags': ['-Wall', '-Wextra', '-Werror', '-Wconversion', '-fvisibility=hidden', '-O2'],
      'cflags_cc!': ['-std=gnu++17', '-std=c++17', '-fno-rtti'],
      'cflags_cc': ['-std=c++20'],
    },
  ],
  'conditions': [
    ["OS=='linux'", {
      # For `cowlab vm`: PID 1 of the guest, and what ends qemu when the harness ends.
      'target_defaults': {
        'cflags!': ['-Wno-unused-parameter'],
        'cflags': ['-Wall', '-Wextra', '-Werror', '-Wconversion', '-O2'],
        'cflags_c': ['-std=gnu17'],
        'defines': ['_GNU_SOURCE'],
      },
      'targets': [
        {
          # The root of a fixture: the part of native/core that a process of a tree runs.
          'target_name': 'cowlab-bare',
          'type': 'executable',
          'sources': [
            'native/core/access.cc',
            'native/core/child.cc',
            'native/core/command_loop.cc',
            'native/core/commit_counter.cc',
            'native/core/process.cc',
            'native/core/region.cc',
            'native/core/restrict.cc',
            'native/core/robust_lock.cc',
            'native/core/sharing.cc',
            'native/core/sharing_commands.cc',
            'native/core/write_mark.cc',
            'native/programs/bare.cc',
          ],
          'cflags_cc!': ['-std=gnu++17', '-std=c++17'],
          'cflags_cc': ['-std=c++20'],
          # Some distributions have the static C library in a package of its own.
          'ldflags': ['<!(sh -c "echo \'int main(){}\' | ${CXX:-c++} -static -x c++ -o /dev/null - 2>/dev/null && echo -static || echo -Wl,-z,now")'],
        },
        { 'target_name': 'cowlab-init', 'type': 'executable', 'sources': ['native/vm/init.c'] },
        { 'target_name': 'cowlab-keeper', 'type': 'executable', 'sources': ['native/programs/keeper.c'] },
        { 'target_name': 'cowlab-tether', 'type': 'executable', 'sources': ['native/vm/tether.c'] },
      ],
    }],
  ],
}
