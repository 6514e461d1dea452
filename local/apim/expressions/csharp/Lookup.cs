using System;
using System.Collections;
using System.Collections.Generic;

namespace Apim
{
    /// A dictionary that expressions can read and only the host can write. Header, query and claim names are
    /// compared without case, variable names with it.
    internal sealed class Lookup<TValue> : IReadOnlyDictionary<string, TValue>
    {
        private readonly Dictionary<string, TValue> entries;

        public Lookup(StringComparer comparer)
        {
            entries = new Dictionary<string, TValue>(comparer);
        }

        public TValue this[string key]
        {
            get
            {
                if (entries.TryGetValue(key, out var value))
                {
                    return value;
                }
                throw new KeyNotFoundException($"The given key '{key}' was not present in the dictionary.");
            }
            set { entries[key] = value; }
        }

        public int Count => entries.Count;

        public IEnumerable<string> Keys => entries.Keys;

        public IEnumerable<TValue> Values => entries.Values;

        public bool ContainsKey(string key) => entries.ContainsKey(key);

        public bool TryGetValue(string key, out TValue value) => entries.TryGetValue(key, out value);

        public void Remove(string key) => entries.Remove(key);

        public IEnumerator<KeyValuePair<string, TValue>> GetEnumerator() => entries.GetEnumerator();

        IEnumerator IEnumerable.GetEnumerator() => entries.GetEnumerator();
    }
}
